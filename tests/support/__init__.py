"""What tests share: real servers, builders of values, and base classes that refuse tests that cannot fail."""
