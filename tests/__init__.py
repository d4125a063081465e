"""All tests. Hypothesis does not time its examples: a machine that runs other tests beside is slow at times."""

from hypothesis import settings

settings.register_profile("smsdaemon", deadline=None)
settings.load_profile("smsdaemon")
