"""A pipeline in pieces and as a process, for tests: started, stopped, killed, looked into."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import duckdb
import psutil
import pyarrow as pa

from ingest.domain import Domain
from ingest.entries import Batch, Entry
from ingest.errors import FoldlogError
from ingest.loading import load_domain
from ingest.producer import Producer
from ingest.stop import Stop
from pipeline.decide.batch import BatchDecider
from pipeline.decide.outcomes import Window
from pipeline.decide.partition import Decided, Partition
from pipeline.deployment import Deployment
from pipeline.engine.programs import running
from pipeline.health.status import status
from pipeline.log.log import Log
from pipeline.read.source import Look
from pipeline.read.steps import Reader
from pipeline.replay.restore import restore
from pipeline.settings import Settings
from projections.writer import Writer
from tests.processes import COLD, Program

DEADLINE_S = 60
DEDUPE_WINDOW = Window(us=86_400_000_000, rows=1_000_000)
LATE_2023_MS = 1_700_000_000_000

SHOP = load_domain("ingest.shop:shop")
"""As a program has it: what its states depend on counts the module that declares it."""


def wait_for(condition: Callable[[], bool], what: str, seconds: float = DEADLINE_S) -> None:
    """Look again and again, with pauses: what is waited for needs the processor."""
    deadline = time.monotonic() + seconds
    while True:
        looked = time.monotonic()
        if condition():
            return
        now = time.monotonic()
        assert now < deadline, f"waited {seconds} s for {what}"
        time.sleep(max(0.02, 4 * (now - looked)))


def entry(number: int, payload: bytes | dict[str, Any]) -> Entry:
    """A stream entry, ten to a millisecond."""
    if isinstance(payload, dict):
        payload = json.dumps(payload).encode()
    return b"%d-%d" % (LATE_2023_MS + number // 10, number % 10), payload, []


class InProcess:
    """The pipeline's own parts, without Redis and Bytewax; `restart` forgets all memory."""

    def __init__(self, folder: Path, domain: Domain = SHOP, partitions: int = 2) -> None:
        self.folder = folder
        self.domain = domain
        self.log = Log.create(folder / "events", partitions=partitions, domain=domain.name)
        self.fold = BatchDecider(domain, partitions=partitions, payload_bytes_max=65_536)
        self.restart()

    def restart(self) -> None:
        if hasattr(self, "reader"):
            self.writer.close()
        self.partitions = [
            restore(self.domain, self.log, number, DEDUPE_WINDOW)
            for number in range(self.log.partitions)
        ]
        settings = Settings(data=self.folder, export_interval_s=0, compact_interval_s=0)
        self.reader = Reader(Deployment(settings, self.domain, self.log))
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
            self.log.append(number, decided.first, decided.rows, inputs=decided.inputs)
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

    def __init__(
        self, settings: Settings, *flags: str, cwd: Path | None = None, cold: bool = COLD
    ) -> None:
        self.settings = settings
        self._flags = flags
        self._cwd = cwd
        self._cold = cold
        self.start()

    def start(self) -> None:
        self.process = Program(
            "pipeline.cli", "up", *self._flags,
            environment=self.settings.as_environment(), cwd=self._cwd, cold=self._cold,
        )  # fmt: skip

    def ready(self) -> Producer:
        """A producer, as soon as outcomes come: the first ones wait for a file to ask."""
        self.wait_until_it_says_so()
        wait_for(self.settings.published.exists, "a file to ask")
        return Producer(self.settings.reachable_redis, self.settings.load_domain())

    def wait_until_it_says_so(self) -> str:
        """What it says to people on standard output, or on standard error where that is JSON."""
        process = self.process
        said = process.stderr if self.settings.log_format == "json" else process.stdout

        def announced() -> bool:
            ended = process.poll() is not None
            found = "Ctrl-C" in said.read_text()
            assert found or not ended, f"the pipeline stopped: {self.errors()}"
            return found

        wait_for(announced, "the pipeline to start")
        return said.read_text()

    def family(self) -> list[psutil.Process]:
        """The processes that it has started, and those that they have."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def workers(self) -> list[psutil.Process]:
        return self._running("work")

    def readers(self) -> list[psutil.Process]:
        """The read side: one process, or none while it is started again."""
        return self._running("read")

    def _running(self, name: str) -> list[psutil.Process]:
        """Those that have begun; of a cold pipeline also those that load their modules yet."""
        begun = {p.process for p in running(self.settings) if p.name.startswith(name)}
        return [p for p in self.family() if p.pid in begun or _is(p, f"pipeline.operate.{name}")]

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
            # The lag is None where Redis takes too long to say what waits.
            waiting = now.lag != 0 or now.sent.waiting or now.unpublished
            return not waiting and now.published_age_s is not None

        wait_for(settled, "the pipeline to settle", seconds)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ask it to stop; its exit code."""
        self.process.send_signal(number)
        return self.process.wait(timeout=DEADLINE_S)

    def errors(self) -> str:
        """What it has written to standard error."""
        return self.process.stderr.read_text()

    def kill(self) -> None:
        """SIGKILL to everything at once, as if the power went; all of it is gone then."""
        family: list[psutil.Process] = []
        if self.process.poll() is None:
            with suppress(psutil.NoSuchProcess):  # it has just ended by itself
                family = self.family()
            self.process.kill()
            for victim in family:
                with suppress(psutil.NoSuchProcess):
                    victim.kill()
        self.process.wait()
        wait_for(lambda: not any(map(lives, family)), "all of it to end")


def lives(process: psutil.Process) -> bool:
    """Whether it may still do something: the system may take seconds to forget it."""
    with suppress(psutil.NoSuchProcess):
        return str(process.status()) != psutil.STATUS_ZOMBIE
    return False


def _is(process: psutil.Process, module: str) -> bool:
    with suppress(psutil.Error):  # it has just ended
        return module in process.cmdline()
    return False


def start(
    side: str,
    settings: Settings,
    *words: str,
    file_bytes_max: int | None = None,
    environment: dict[str, str] | None = None,
) -> Program:
    """A `work` or `read` process by itself; the kernel refuses it files over a size."""
    environment = settings.as_environment() | (environment or {})
    module = f"pipeline.operate.{side}"
    return Program(module, *words, environment=environment, file_bytes_max=file_bytes_max)


def foldlog(
    settings: Settings,
    *words: str,
    stdin: str = "",
    environment: dict[str, str] | None = None,
    cold: bool = COLD,
) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end."""
    environment = settings.as_environment() | (environment or {})
    ran = Program("pipeline.cli", *words, environment=environment, stdin=stdin, cold=cold)
    try:
        stdout, stderr = ran.communicate(DEADLINE_S)
    finally:
        ran.kill()
    return subprocess.CompletedProcess(list(words), ran.wait(), stdout, stderr)


def chunked(items: Sequence[Any], sizes: Iterable[int]) -> list[list[Any]]:
    """`items` cut into batches of the given sizes, the rest as one more."""
    batches, at = [], 0
    for size in sizes:
        batches.append(list(items[at : at + size]))
        at += size
    batches.append(list(items[at:]))
    return [batch for batch in batches if batch]
