"""The vendors' own libraries against our schemes: `make test-sdks`.

They bring some 190 MB (HTTP clients, mostly) and are no part of `make test`, whose proof are the recorded
vectors; hence no module here is called test_….
"""
