"""All tests. Hypothesis does not time its examples: a machine that does more at once is slow at times."""

from hypothesis import settings

settings.register_profile("smsdaemon", deadline=None)
settings.load_profile("smsdaemon")
