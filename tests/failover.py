"""A Redis that comes back behind the log: real servers that take each other's place, with producers
that go on at once, and a worker that is down, paused or running meanwhile.

    python -m tests.failover      the whole matrix, about 15 minutes; `make chaos` runs it

A server's clock is set by the ids that the producers ask for: what XADD would have given there.
Nothing here knows how the pipeline mends a stream.
"""

from __future__ import annotations

import itertools
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import duckdb
import redis

from ingest.child import with_parent
from ingest.server import find_server
from pipeline.log.log import Log
from pipeline.settings import Settings
from tests.oracle import partition_of
from tests.processes import Program
from tests.running import start, wait_for
from tests.servers import free_port

Older: TypeAlias = "Server | Path | None"

PARTITIONS = 2
PRODUCERS = 3
SEQUENCE_MAX = 2**64 - 1

CHANGES = ["emptied", "rolled back", "replaced", "flushed", "resynced"]
"""How Redis forgets: restarted empty; restarted from an older copy; its replica takes its place;
FLUSHALL; made a replica of an older copy and back. The last two keep the connections."""

WORKERS = ["down", "paused", "running"]
SKEWS_S = [0.05, 0.5, 3.0, 10.0]


class Server:
    """A redis-server in a folder, on a Unix socket there and a port of the loopback."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = folder / "redis.sock"
        self.port = free_port()

    def start(self, *arguments: str) -> Server:
        self.folder.mkdir(exist_ok=True)
        words = ["--bind", "127.0.0.1", "--port", str(self.port), "--unixsocket", str(self.socket)]
        words += ["--dir", str(self.folder), "--save", "", "--repl-diskless-sync-delay", "0"]
        # Written at once, and so safe from a kill, but not fsynced each time.
        words += ["--appendonly", "yes", "--appendfsync", "everysec", *arguments]
        self._process = subprocess.Popen(
            with_parent([str(find_server()), *words]), stdout=subprocess.DEVNULL
        )
        wait_for(self._answers, "a redis-server")
        return self

    def _answers(self) -> bool:
        with suppress(redis.ConnectionError), self.client() as client:
            return bool(client.ping())
        return False

    def client(self) -> redis.Redis:
        return redis.Redis(unix_socket_path=str(self.socket))

    def copy_of(self, other: Server) -> None:
        """Begin as a replica of another, which has all that it has, and stand alone."""
        with self.client() as client:
            client.replicaof("127.0.0.1", str(other.port))
            wait_for(lambda: client.info("replication")["master_link_status"] == "up", "the copy")
            with other.client() as original:
                original.set("written", "last")
            wait_for(lambda: client.get("written") == b"last", "the last write")
            client.replicaof("NO", "ONE")

    def kill(self) -> None:
        """End it at once, as if the power went; `start` goes on with what it has on disk."""
        self._process.kill()
        self._process.wait()


class Redis:
    """A Redis at an address that stays, whatever server answers there."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        """`arguments` go to each server."""
        self._folder = folder
        self._arguments = arguments
        self._servers: list[Server] = []
        self.address = folder / "address"
        self.url = f"unix://{self.address}"
        self.now = self._server()
        self._answer()

    def _server(self, copy: Path | None = None) -> Server:
        server = Server(self._folder / f"server-{len(self._servers)}")
        self._servers.append(server)
        if copy is not None:
            copy.rename(server.folder)
        return server.start(*self._arguments)

    def _answer(self) -> None:
        beside = self.address.with_suffix(".new")
        beside.symlink_to(self.now.socket)
        beside.rename(self.address)

    def older(self, change: str) -> Older:
        """What a change that comes later will go back to."""
        if change == "rolled back":
            copy = self._folder / f"copy-{len(self._servers)}"
            return Path(shutil.copytree(self.now.folder, copy, ignore=_sockets))
        if change in ("replaced", "resynced"):
            replica = self._server()
            replica.copy_of(self.now)
            return replica
        return None

    def change(self, change: str, older: Older) -> set[str]:
        """Go back; see `CHANGES`. The commands that Redis then has; nobody may be adding any."""
        kept: set[str] = set()
        if change == "flushed":
            with self.now.client() as client:
                client.flushall()
        elif change == "resynced":
            assert isinstance(older, Server)
            kept = held(older)
            self.now.copy_of(older)
        else:
            self.now.kill()
            self.now = older if isinstance(older, Server) else self._server(older)
            kept = held(self.now)
            self._answer()
        return kept

    def end(self) -> None:
        for server in self._servers:
            server.kill()


@dataclass
class Producers:
    """Threads that each send commands one by one, and remember what Redis acknowledged."""

    address: Path
    clock_ms: int = 0
    """What the server's clock is off by."""
    acknowledged: list[str] = field(default_factory=list)
    """Command ids, or payloads where there is none; in the order of their acknowledgement."""

    def __post_init__(self) -> None:
        self._turn = threading.Lock()
        self._last: dict[str, tuple[int, int]] = {}
        self._client = redis.Redis(unix_socket_path=str(self.address))
        self._stopping = False
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(PRODUCERS)]

    def __enter__(self) -> Producers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping = True
        for thread in self._threads:
            thread.join()
        self._client.close()

    @contextmanager
    def halted(self) -> Iterator[None]:
        """Nobody is sending."""
        with self._turn:
            yield

    def forget(self) -> None:
        """Another server answers, while all are halted."""
        self._client.close()
        self._last.clear()

    def _run(self, thread: int) -> None:
        for number in itertools.count():
            if self._stopping:
                return
            cart = f"cart-{thread}-{number % 5}"
            key = f"{thread}-{number}"
            command: dict[str, Any] = {"type": "AddProduct", "cart_id": cart, "product_id": "p"}
            command |= {"quantity": 1, "unit_price_cents": 1, "command_id": key}
            payload = json.dumps(command)
            if number % 40 == 7:  # nothing tells it from others but its bytes
                payload = key
            self._add(f"{{shop-{partition_of(cart, PARTITIONS)}}}:commands", key, payload)
            time.sleep(0.001)

    def _add(self, stream: str, key: str, payload: str) -> None:
        with self._turn:
            now_ms = int(time.time() * 1000) + self.clock_ms
            while True:
                at = _next(self._last.get(stream, (0, 0)), now_ms)
                try:
                    self._client.xadd(stream, {"command": payload}, id=f"{at[0]}-{at[1]}")
                except redis.ResponseError as error:
                    if "equal or smaller" not in str(error):
                        raise
                    last = self._client.xinfo_stream(stream)["last-generated-id"].decode()
                    self._last[stream] = (int(last.split("-")[0]), int(last.split("-")[1]))
                else:
                    self._last[stream] = at
                    self.acknowledged.append(key)
                    return


def _next(last: tuple[int, int], now_ms: int) -> tuple[int, int]:
    """The id that a server whose clock says `now_ms` gives after `last`."""
    if now_ms > last[0]:
        return now_ms, 0
    return (last[0], last[1] + 1) if last[1] < SEQUENCE_MAX else (last[0] + 1, 0)


@dataclass(frozen=True)
class Case:
    change: str
    worker: str
    skew_s: float
    """What the new server's clock is ahead by; negative where it is behind."""

    def __str__(self) -> str:
        clock = f"{abs(self.skew_s):g} s {'ahead' if self.skew_s > 0 else 'behind'}"
        return f"{self.change}, its clock {clock}, worker {self.worker}"

    def run(self) -> list[str]:
        """Every way in which what is in the log then is not what it must be."""
        with tempfile.TemporaryDirectory(prefix="foldlog-") as folder:
            run = _Run(self, Path(folder))
            try:
                return run.run()
            finally:
                run.end()


class _Run:
    def __init__(self, case: Case, folder: Path) -> None:
        self._case = case
        self._redis = Redis(folder)
        self._settings = Settings(
            data=folder / "data", redis_url=self._redis.url, export_interval_s=0
        )
        self._worker: Program | None = None

    def run(self) -> list[str]:
        Log.create(self._settings.events, partitions=PARTITIONS, domain="shop")
        self._start_worker()
        with Producers(self._redis.address) as producers:
            wait_for(lambda: len(self._rows()) > 50, "the first commits")
            with producers.halted():
                older = self._redis.older(self._case.change)
            time.sleep(0.4)
            self._interrupt_worker()
            with producers.halted():
                kept = self._redis.change(self._case.change, older)
                lost = {*producers.acknowledged} - kept
                producers.forget()
                producers.clock_ms = round(self._case.skew_s * 1000)
            # Long enough for the clock to pass the log's last id, where it is little behind.
            time.sleep(0.3 + max(0.0, min(-self._case.skew_s, 0.6)))
            self._resume_worker()
            time.sleep(0.5)
        with self._redis.now.client() as client:
            wait_for(lambda: _length(client) == 0, "the worker to handle all that waits")
        assert self._worker is not None
        self._worker.send_signal(signal.SIGTERM)
        _, errors = self._worker.communicate()
        assert self._worker.returncode == 0, errors
        return [*self._differences(producers.acknowledged, lost)]

    def end(self) -> None:
        if self._worker is not None:
            self._worker.kill()
            self._worker.wait()
        self._redis.end()

    def _start_worker(self) -> None:
        self._worker = start("work", self._settings)

    def _interrupt_worker(self) -> None:
        assert self._worker is not None
        if self._case.worker == "down":
            self._worker.kill()
            self._worker.communicate()
        elif self._case.worker == "paused":
            self._worker.send_signal(signal.SIGSTOP)

    def _resume_worker(self) -> None:
        assert self._worker is not None
        if self._case.worker == "down":
            self._start_worker()
        elif self._case.worker == "paused":
            self._worker.send_signal(signal.SIGCONT)

    def _rows(self) -> list[tuple[int, str, str]]:
        """Partition, stream id and key of each command in the log, in its order."""
        files = f"{self._settings.events}/*/*.parquet"
        with suppress(duckdb.IOException), duckdb.connect() as db:  # there is none yet
            return db.execute(
                "SELECT partition, stream_id, coalesce(command_id, payload::VARCHAR)"
                f" FROM read_parquet('{files}', hive_partitioning = false)"
                " ORDER BY partition, position"
            ).fetchall()
        return []

    def _differences(self, acknowledged: list[str], lost: set[str]) -> Iterator[str]:
        """`lost` were acknowledged by a server that forgot them, so nobody may have them now."""
        rows = self._rows()
        found = {key for _, _, key in rows}
        for key in {*acknowledged} - found - lost:
            yield f"{key} was acknowledged, and has no outcome"
        for key in found - {*acknowledged}:
            yield f"{key} was never sent"
        if len(found) < len(rows):
            yield f"{len(rows) - len(found)} have several outcomes"
        order: dict[tuple[int, str], list[int]] = defaultdict(list)
        ids: dict[int, list[tuple[int, ...]]] = defaultdict(list)
        for partition, stream_id, key in rows:
            thread, _, number = key.partition("-")
            order[partition, thread].append(int(number))
            ids[partition].append(tuple(map(int, stream_id.split("-"))))
        if any(numbers != sorted(numbers) for numbers in order.values()):
            yield "a producer's commands are not in its order"
        if any(given != sorted(given) for given in ids.values()):
            yield "the log's stream ids do not ascend"


def _sockets(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if name.endswith(".sock")]


def _streams(client: redis.Redis) -> list[bytes]:
    return [*client.scan_iter("{shop-*", _type="stream")]


def _length(client: redis.Redis) -> int:
    return sum(int(client.xlen(stream)) for stream in _streams(client))


def held(server: Server) -> set[str]:
    """The keys of all commands in a server's streams."""
    held = set()
    with server.client() as client:
        for stream in _streams(client):
            for _, fields in client.xrange(stream):  # type: ignore[union-attr]
                payload = fields.get(b"command", b"").decode()
                held.add(json.loads(payload)["command_id"] if "{" in payload else payload)
    return held


def main() -> None:
    cases = [
        Case(change, worker, sign * skew)
        for change, worker, skew in itertools.product(CHANGES, WORKERS, SKEWS_S)
        for sign in (-1, 1)
    ]
    wrong = 0
    for number, case in enumerate(cases, 1):
        differences = case.run()
        wrong += bool(differences)
        print(f"{number}/{len(cases)} {case}: {'; '.join(differences[:5]) or 'well'}", flush=True)
    if wrong:
        sys.exit(f"{wrong} of {len(cases)} went wrong")


if __name__ == "__main__":
    main()
