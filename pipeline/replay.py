"""The folded read model from the whole log: a dataflow with the log as its source, on all cores.

One process for each core, and each owns some partitions, as when commands come in. Nothing moves
between them, so each is a dataflow of its own: a cluster's workers would wait for each other first.
Its result is one Arrow file for each partition, which the rebuild reads and removes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import bytewax.operators as op
import pyarrow as pa
from bytewax.dataflow import Dataflow
from bytewax.inputs import DynamicSource, StatelessSourcePartition
from bytewax.outputs import DynamicSink, StatelessSinkPartition

from ingest.domain import Domain
from ingest.errors import FoldlogError
from ingest.server import die_with_parent
from pipeline.aggregates import Aggregate
from pipeline.fold import FoldedRows
from pipeline.log import Log
from pipeline.recovery import Decoder, fold_rows, scan
from pipeline.settings import Settings
from pipeline.worker import run
from projections.relations import Positions


@dataclass(frozen=True, slots=True)
class Events:
    """What moves through the dataflow: events of one partition; None after its last ones."""

    partition: int
    rows: pa.Table | None


class _LogPart(StatelessSourcePartition[Events]):
    def __init__(self, events: Iterator[Events]) -> None:
        self._events = events

    def next_batch(self) -> list[Events]:
        return [next(self._events)]


class LogSource(DynamicSource[Events]):
    """Reads the partitions of `until`, one after the other. For a dataflow of one worker."""

    def __init__(self, domain: Domain, log: Log, until: Positions) -> None:
        self._domain = domain
        self._log = log
        self._until = until

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _LogPart:
        return _LogPart(self._events())

    def _events(self) -> Iterator[Events]:
        for partition, end in self._until.items():
            for rows in scan(self._domain, self._log, {partition: end}) if end else ():
                yield Events(partition, rows)
            yield Events(partition, None)


class _FilesPart(StatelessSinkPartition[tuple[int, pa.Table]]):
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write_batch(self, items: list[tuple[int, pa.Table]]) -> None:
        for partition, states in items:
            path = self._folder / f"{partition}.arrow"
            with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, states.schema) as writer:
                writer.write_table(states)


class Files(DynamicSink[tuple[int, pa.Table]]):
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _FilesPart:
        return _FilesPart(self._folder)


def build(
    domain: Domain, log: Log, until: Positions, folder: Path, seen: Callable[[int], None]
) -> Dataflow:
    """Fold the log up to `until` into files in `folder`; `seen(events)` is called as it goes."""
    decoder, folded = Decoder(domain), FoldedRows(domain)
    states: dict[int, dict[str, Aggregate]] = {partition: {} for partition in until}

    def fold(events: Events) -> tuple[int, pa.Table] | None:
        if events.rows is None:
            return events.partition, folded.table(states.pop(events.partition))
        fold_rows(domain, decoder, states[events.partition], events.rows)
        seen(len(events.rows))
        return None

    flow = Dataflow("replay")
    events = op.input("log", flow, LogSource(domain, log, until))  # Events(partition, rows)
    done = op.filter_map("fold", events, fold)  # (partition, its folded rows)
    op.output("files", done, Files(folder))
    return flow


def replay(
    settings: Settings, until: Positions, folder: Path, seen: Callable[[int], None]
) -> pa.Table:
    """The folded rows of all aggregates as of `until`. `folder` is for its files, which stay.

    Raises `FoldlogError` where a process fails; it has said why.
    """
    count = min(os.cpu_count() or 1, sum(1 for end in until.values() if end) or 1)
    reading, writing = os.pipe()  # one for all: so short a line arrives whole
    shares = [dict([*until.items()][process::count]) for process in range(count)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-P", "-m", "pipeline.replay",
             str(writing), json.dumps(share), str(folder)],
            env={**os.environ, **settings.as_environment()},
            pass_fds=[writing],
            preexec_fn=die_with_parent,
        )
        for share in shares
    ]  # fmt: skip
    os.close(writing)
    try:
        with os.fdopen(reading) as lines:
            for line in lines:
                seen(int(line))
        if any(process.wait() for process in processes):
            raise FoldlogError("the folded read model is not rebuilt; the lines above say why")
    finally:
        for process in processes:
            process.kill()
            process.wait()
    files = [pa.ipc.open_file(folder / f"{p}.arrow").read_all() for p in until]
    empty = FoldedRows(settings.load_domain()).schema.empty_table()
    return pa.concat_tables([empty, *files])


def _main(progress: str, until: str, folder: str) -> int:
    settings = Settings()
    domain = settings.load_domain()
    log = Log.open(settings.events, domain=domain.name)
    positions = {int(partition): end for partition, end in json.loads(until).items()}

    def seen(events: int) -> None:
        os.write(int(progress), b"%d\n" % events)

    flow = build(domain, log, positions, Path(folder), seen)
    return run(lambda _: flow)


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
