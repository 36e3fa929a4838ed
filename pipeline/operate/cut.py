"""`foldlog restore`: a log that was put together from several backups, cut back to one moment.

A commit says how far it has read the logs of other partitions. Where such a log ends before that,
it is from an older backup, and the newer commits go: the newest ones that fit together stay. Of a
compacted file only the rows go from the first command on that nobody has sent.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

from ingest import crash
from ingest.durable import fsync_folder
from ingest.errors import DataInUse
from ingest.stream_id import as_numbers
from pipeline.deployment import Deployment
from pipeline.engine.programs import running
from pipeline.lock import alone
from pipeline.log.log import Log
from pipeline.log.names import LogFile
from pipeline.log.tail import Tail, end_of
from pipeline.operate.inputs_at import first_beyond, inputs_at
from pipeline.settings import Settings

ASIDE = ".cut"
"""What a file that went is called then, after its name and a number."""


@dataclass(frozen=True, slots=True)
class Cut:
    """What goes from a partition."""

    partition: int
    end: Tail
    """Where the log ends afterwards."""
    until: int
    """It ended here."""
    files: list[LogFile]
    """They go, the newest first. The last one may have begun before `end`."""


def consistent(log: Log) -> list[Cut]:
    """What has to go for each partition's commits to have read only what is there."""
    files = {p: log.files(p) for p in range(log.partitions)}
    tails = {p: [end_of(file) for file in held] for p, held in files.items()}
    until = {p: _end(held) for p, held in tails.items()}
    gone: dict[int, list[LogFile]] = {p: [] for p in files}
    while beyond := [p for p in files if tails[p] and _reads_beyond(tails, p)]:
        for partition in beyond:
            end = tails[partition].pop().next_position
            file = files[partition][len(tails[partition])]
            if file not in gone[partition]:
                gone[partition].append(file)
            if file.last is not None:
                tails[partition] += _beginning(log, partition, file, end, tails)
    return [
        Cut(p, tails[p][-1] if tails[p] else Tail(), until[p], went)
        for p, went in gone.items()
        if went
    ]


def _beginning(
    log: Log, partition: int, file: LogFile, end: int, tails: Mapping[int, list[Tail]]
) -> list[Tail]:
    """Where a compacted file that ends at `end` can end before, if it can."""
    ends = {p: _end(held) for p, held in tails.items()} | {partition: end}
    cut = first_beyond(log, partition, end, ends)
    if cut is None or cut <= file.first:
        return []
    inputs = inputs_at(log, partition, cut)
    # Entries that were duplicates are handled, and no rows.
    read = [inputs.stream_id, *(tail.inputs.stream_id for tail in tails[partition][-1:])]
    return [Tail(cut, replace(inputs, stream_id=max(read, key=as_numbers)))]


def _end(tails: Sequence[Tail]) -> int:
    return tails[-1].next_position if tails else 0


def _reads_beyond(tails: dict[int, list[Tail]], partition: int) -> bool:
    """Whether its last commit has read what some log does not have."""
    cursors = tails[partition][-1].inputs.cursors
    return any(cursor > _end(tails[sender]) for sender, cursor in cursors.items())


def restore(settings: Settings, *, yes: bool) -> list[Cut]:
    """What has to go; with `yes` it goes, and with it every read model and snapshot, which are
    made again. Raises `DataInUse` while a pipeline runs here.
    """
    deployed = Deployment.open(settings)
    refusal = f"a pipeline runs on {settings.data}; stop it first"
    with alone(settings.lock, refusal):
        if running(settings):
            raise DataInUse(refusal)
        cuts = consistent(deployed.log)
        if yes and cuts:
            _remove_caches(settings)
            for cut in cuts:
                _set_aside(deployed.log, cut)
    return cuts


def _set_aside(log: Log, cut: Cut) -> None:
    """The newest file first: killed at any time, it leaves a shorter log, and none with gaps."""
    oldest, kept = cut.files[-1], None
    if oldest.first < cut.end.next_position:
        kept = log.append_compacted(cut.partition, [oldest], cut.end)
    for gone in cut.files:
        # Covered ones would be seen again. They go first: some may have been removed already.
        for file in reversed(log.all_files(cut.partition)):
            if file.first >= gone.first and file != kept:
                crash.point("cut.to_rename")
                os.replace(file.path, _aside(file.path))
                crash.point("cut.renamed")
        crash.point("cut.to_fsync_folder")
        fsync_folder(log.partition_folder(cut.partition))
        crash.point("cut.fsynced")


def _aside(path: Path) -> str:
    """A name for it that nothing has which was cut before."""
    names = (f"{path}.{number}{ASIDE}" for number in count(1))
    return next(name for name in names if not os.path.exists(name))


def _remove_caches(settings: Settings) -> None:
    """What was made from commits that go."""
    for folder in (settings.kept, settings.snapshots, settings.states, settings.exported):
        shutil.rmtree(folder, ignore_errors=True)
    for path in (settings.writers_file, settings.published, settings.rebuilt):
        path.unlink(missing_ok=True)
