"""Servers that are not what a pipeline needs: real ones with other settings, and no Redis."""

from __future__ import annotations

import secrets
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import redis

from ingest.server import find_server
from tests.running import wait_for


class Server:
    """A server of its own on a free port of this host, with flags as in its configuration file."""

    def __init__(self, *flags: str, folder: Path) -> None:
        self.port = free_port()
        self.socket = folder / "admin.sock"
        folder.mkdir(exist_ok=True)
        words = ["--port", str(self.port), "--bind", "127.0.0.1", "--unixsocket", self.socket,
                 "--dir", folder, "--save", "", "--logfile", "log", *flags]  # fmt: skip
        self.process = subprocess.Popen([find_server(), *words], stdout=subprocess.DEVNULL)
        wait_for(self._answers, "the server")

    def _answers(self) -> bool:
        """On its socket: it listens on the port before."""
        with suppress(OSError), socket.socket(socket.AF_UNIX) as trying:
            trying.connect(str(self.socket))
            return True
        return False

    def url(self, credentials: str = "") -> str:
        return f"redis://{credentials}{'@' if credentials else ''}127.0.0.1:{self.port}"

    def client(self, password: str | None = None) -> redis.Redis:
        return redis.Redis(unix_socket_path=str(self.socket), password=password, protocol=2)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def server(*flags: str) -> Iterator[Server]:
    folder = Path(tempfile.mkdtemp(prefix="foldlog-"))
    running = Server(*flags, folder=folder)
    try:
        yield running
    finally:
        running.stop()
        shutil.rmtree(folder)


def free_port() -> int:
    """One of which the next is free, too. No connection is given it meanwhile, nor the one of the
    cluster bus, 10,000 above it: systems give those from 32,768 on.
    """
    while True:
        port = 10_000 + secrets.randbelow(10_000)  # hypothesis seeds what is not secret
        with suppress(OSError):
            for taken in (port, port + 1):
                socket.create_server(("127.0.0.1", taken)).close()
            return port


@contextmanager
def listener(answer: bytes = b"", tls: bool = False) -> Iterator[int]:
    """Something that is no Redis: says the same to everyone, behind TLS or not; its port."""
    with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0)) as door:
        context = _context(Path(folder)) if tls else None
        closing = threading.Event()

        def serve() -> None:
            door.settimeout(0.1)
            while not closing.is_set():
                with suppress(OSError):
                    connection, _ = door.accept()
                    threading.Thread(target=talk, args=[connection], daemon=True).start()

        def talk(connection: socket.socket) -> None:
            with suppress(OSError), connection:
                connection.settimeout(5)
                talking = context.wrap_socket(connection, server_side=True) if context else None
                with talking or connection as either:
                    either.recv(1024)
                    either.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield int(door.getsockname()[1])
        finally:
            closing.set()
            thread.join()


def _context(folder: Path) -> ssl.SSLContext:
    """Of a server whose certificate nobody has signed but itself."""
    words = "req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost -keyout key -out crt"
    subprocess.run(["openssl", *words.split()], cwd=folder, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "crt", folder / "key")
    return context
