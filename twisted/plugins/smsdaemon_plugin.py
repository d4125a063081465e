"""Makes `twistd smsdaemon` known; strings only, so that listing plugins imports nothing of ours."""

from twisted.application.service import ServiceMaker

smsdaemon = ServiceMaker(
    "smsdaemon",
    "smsdaemon.tap",
    "Receives SMS over HTTP(S), stores them durably and routes them.",
    "smsdaemon",
)
