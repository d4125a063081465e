"""What `twistd smsdaemon` calls; takes the reactor from the world, as worker_process.py does for workers."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, ClassVar

from twisted.application.service import IService
from twisted.logger import ILogObserver
from twisted.python import usage
from twisted.python.logfile import LogFile

from smsdaemon.app import build
from smsdaemon.daemon import refuse
from smsdaemon.errors import ConfigurationError
from smsdaemon.log import observer
from smsdaemon.settings import Settings, current_folder, load
from smsdaemon.steady_time import keep_steady


class Options(usage.Options):
    """Command line of the plugin; reads the settings, so that a wrong one stops the start here."""

    optParameters: ClassVar = [
        ["config", "c", None, "settings file (default: $SMSDAEMON_CONFIG, else built-in defaults)"],
        ["demo", None, None, "apply this directory file at start and print what to try"],
    ]

    settings: Settings

    def postOptions(self) -> None:
        path = None if self["config"] is None else Path(self["config"])
        try:
            self.settings = load(path, os.environ, current_folder())
        except ConfigurationError as error:
            refuse(error.problems)
        self._choose_log()

    def _choose_log(self) -> None:
        """Have our observer write where twistd's would have; syslog and --logger stay theirs."""
        twistd: Any = self.parent
        if twistd is None or twistd.get("logger") or twistd.get("syslog"):
            return
        name, nodaemon = twistd.get("logfile"), twistd.get("nodaemon")
        if name == "-" or (not name and nodaemon):
            stream: Any = sys.stdout
        else:
            stream = _log_file(name or "smsdaemon.log")
        _chosen.append(observer(self.settings.log, stream))
        twistd["logger"] = f"{__name__}.chosen_observer"


def _log_file(path: str) -> Any:
    try:
        return LogFile.fromFullPath(path, defaultMode=0o640)
    except OSError as error:
        refuse([f"--logfile: {path} cannot be written: {error.strerror}"])


# twistd takes the name of a factory, and nothing else, and calls it before there is a service.
_chosen: list[ILogObserver] = []


def chosen_observer() -> ILogObserver:
    """The observer that the options made."""
    return _chosen[-1]


def makeService(options: Options) -> IService:
    """The root service; exits with 1 and a line per problem where it cannot be made."""
    from twisted.internet import reactor

    keep_steady(reactor)
    demo = None if options["demo"] is None else Path(options["demo"])
    try:
        # twistd replaces sys.stdout by a log file object; the ready line is for whoever started us.
        return build(options.settings, reactor=reactor, out=sys.__stdout__ or sys.stdout, demo_file=demo)
    except ConfigurationError as error:
        refuse(error.problems)
