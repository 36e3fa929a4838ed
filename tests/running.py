"""A pipeline in pieces and as a process, for tests: started, stopped, killed, looked into."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import duckdb
import psutil
import pyarrow as pa

from ingest.cart import cart
from ingest.domain import Domain
from ingest.entries import Batch, Entry
from ingest.errors import FoldlogError
from ingest.producer import Producer
from ingest.stop import Stop
from pipeline.decide.batch import BatchDecider
from pipeline.decide.outcomes import Window
from pipeline.decide.partition import Decided, Partition
from pipeline.health.status import status
from pipeline.log.log import Log
from pipeline.read.source import Look
from pipeline.read.steps import Reader
from pipeline.replay.restore import restore
from pipeline.settings import Settings
from projections.writer import Writer

DEADLINE_S = 60
DEDUPE_WINDOW = Window(us=86_400_000_000, rows=1_000_000)
LATE_2023_MS = 1_700_000_000_000


def wait_for(condition: Callable[[], bool], what: str, seconds: float = DEADLINE_S) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.02)


def entry(number: int, payload: bytes | dict[str, Any]) -> Entry:
    """A stream entry, ten to a millisecond."""
    if isinstance(payload, dict):
        payload = json.dumps(payload).encode()
    return b"%d-%d" % (LATE_2023_MS + number // 10, number % 10), payload, []


class InProcess:
    """The pipeline's own parts, without Redis and Bytewax; `restart` forgets all memory."""

    def __init__(self, folder: Path, domain: Domain = cart, partitions: int = 2) -> None:
        self.folder = folder
        self.domain = domain
        self.log = Log.create(folder / "events", partitions=partitions, domain=domain.name)
        self.fold = BatchDecider(domain, partitions=partitions, payload_bytes_max=65_536)
        self.restart()

    def restart(self) -> None:
        if hasattr(self, "reader"):
            self.writer.close()
        self.partitions = [
            restore(self.domain, self.log, number, DEDUPE_WINDOW)[0]
            for number in range(self.log.partitions)
        ]
        settings = Settings(data=self.folder, export_interval_s=0, compact_interval_s=0)
        self.reader = Reader(settings, self.domain, self.log)
        self.follower = self.reader.start(Stop())

    @property
    def writer(self) -> Writer:
        return self.reader.writer

    def decide(self, number: int, entries: list[Entry]) -> Decided:
        """Decide and commit one batch of a partition."""
        partition: Partition = self.partitions[number]
        decided = self.fold.decide(partition, Batch(number, entries))
        partition.apply(decided)
        if len(decided.rows):
            self.log.append(number, decided.first, decided.rows)
        return decided

    def flush(self, _: object = None) -> None:
        """Into the read models: all that the log has."""
        look = Look(self.follower.look(10**9), last=True)
        self.reader.flush(self.reader.fold(look))

    def run(self, number: int, *payloads: bytes | dict[str, Any]) -> list[dict[str, Any]]:
        """One batch through everything; its rows."""
        decided = self.decide(number, [entry(i, p) for i, p in enumerate(payloads)])
        self.flush([decided])
        rows: list[dict[str, Any]] = decided.rows.to_pylist()
        return rows

    def rows(self) -> pa.Table:
        """The whole log, partition by partition."""
        tables = [t for p in range(self.log.partitions) for t in self.log.read(p)]
        return pa.concat_tables([self.domain.schema.empty_table(), *tables])

    def publish(self) -> Path:
        self.flush()
        self.reader.publish(Look([], last=True))
        return self.folder / "read_models.duckdb"


def read(path: Path, *relations: str) -> dict[str, list[tuple[Any, ...]]]:
    """All rows of some relations of a published file, sorted."""
    with duckdb.connect(str(path), read_only=True) as db:
        return {name: sorted_rows(db, f"SELECT * FROM {name}") for name in relations}


def sorted_rows(db: duckdb.DuckDBPyConnection, sql: str) -> list[tuple[Any, ...]]:
    return sorted(db.execute(sql).fetchall(), key=repr)


class Up:
    """`foldlog up` as a process of its own, with all that it starts."""

    def __init__(self, settings: Settings, *flags: str, cwd: Path | None = None) -> None:
        self.settings = settings
        self._flags = flags
        self._cwd = cwd
        self.start()

    def start(self) -> None:
        self._said_so = False
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "pipeline.cli", "up", *self._flags],
            env={**os.environ, **self.settings.as_environment()},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self._cwd,
        )

    def ready(self) -> Producer:
        """A producer, as soon as the pipeline has announced itself."""
        self.wait_until_it_says_so()
        return Producer(self.settings.reachable_redis, self.settings.load_domain())

    def wait_until_it_says_so(self) -> None:
        """On standard output, or where that is JSON, with all else on standard error."""
        said = self.process.stderr if self.settings.log_format == "json" else self.process.stdout
        assert said is not None
        for line in said if not self._said_so else []:
            if b"Ctrl-C" in line:
                self._said_so = True
                return
        assert self._said_so, f"the pipeline stopped: {self.errors()}"

    def family(self) -> list[psutil.Process]:
        """The processes that it has started, and those that they have."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def workers(self) -> list[psutil.Process]:
        return self._running("pipeline.operate.work")

    def readers(self) -> list[psutil.Process]:
        """The read side: one process, or none while it is started again."""
        return self._running("pipeline.operate.read")

    def _running(self, module: str) -> list[psutil.Process]:
        found = []
        for process in self.family():
            with suppress(psutil.Error):  # it has just ended
                if module in process.cmdline():
                    found.append(process)
        return found

    def settle(self, seconds: float = DEADLINE_S) -> None:
        """Wait until every command is committed and published."""
        self.wait_until_it_says_so()

        def settled() -> bool:
            if self.process.poll() is not None:
                raise AssertionError(f"the pipeline stopped: {self.errors()}")
            try:
                now = status(self.settings)
            except (FoldlogError, duckdb.Error):
                return False
            return now.lag == 0 and now.unpublished == 0 and now.published_age_s is not None

        wait_for(settled, "the pipeline to settle", seconds)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ask it to stop; its exit code."""
        self.process.send_signal(number)
        return self.process.wait(timeout=DEADLINE_S)

    def errors(self) -> str:
        """What it has written to standard error; for when it has ended."""
        assert self.process.stderr is not None
        return self.process.stderr.read().decode()

    def kill(self) -> None:
        """SIGKILL to everything at once, as if the power went."""
        if self.process.poll() is None:
            victims = [psutil.Process(self.process.pid), *self.family()]
            for victim in victims:
                with suppress(psutil.NoSuchProcess):
                    victim.kill()
        self.process.wait()
        for pipe in (self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()


def start(
    side: str, settings: Settings, file_bytes_max: int | None = None
) -> subprocess.Popen[str]:
    """A `work` or `read` process by itself; the kernel refuses it files over a size."""

    def limit() -> None:
        if file_bytes_max:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes_max, file_bytes_max))

    return subprocess.Popen(
        [sys.executable, "-m", f"pipeline.operate.{side}"],
        env={**os.environ, **settings.as_environment()},
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=limit,
    )


def foldlog(
    settings: Settings, *words: str, stdin: str = "", environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end."""
    return subprocess.run(
        [sys.executable, "-P", "-m", "pipeline.cli", *words],
        env={**os.environ, **settings.as_environment(), **(environment or {})},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )


def chunked(items: Sequence[Any], sizes: Iterable[int]) -> list[list[Any]]:
    """`items` cut into batches of the given sizes, the rest as one more."""
    batches, at = [], 0
    for size in sizes:
        batches.append(list(items[at : at + size]))
        at += size
    batches.append(list(items[at:]))
    return [batch for batch in batches if batch]
