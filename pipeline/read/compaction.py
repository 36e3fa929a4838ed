"""Compaction as the read side runs it: files that leave the log stay for readers, for a while.

Those that were published stay under another name, where no one who lists the log meets them, for
readers that have an older published file open; see `projections.kept`.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from dataclasses import asdict, dataclass

import duckdb

from ingest import crash, rights
from ingest.errors import NotAvailable, one_line
from pipeline.lock import alone
from pipeline.log.compaction import merge, remove_covered
from pipeline.log.log import Log
from pipeline.settings import Settings
from projections.held import held_in

NOTE = "kept.json"


MANY = 10_000


PAUSE_S = 5
"""Between looks at what is kept, for each `MANY` files of it: a look at so many takes 0.1 s."""


@dataclass(frozen=True, slots=True)
class KeptForReaders:
    """What is kept only for readers that have an older published file open."""

    files: int = 0
    bytes: int = 0
    """Of the disk."""
    at: float = 0
    """When this was looked up, as a Unix time."""


@dataclass(frozen=True, slots=True)
class Compacted:
    """What one round did."""

    merged: int
    into: int
    removed: int
    """From the log."""
    kept: KeptForReaders


def compact(settings: Settings, log: Log) -> Compacted:
    """Merge files, remove those that were covered for long enough, and trim what is kept.

    Raises `DataInUse` while another one compacts, `LogDamaged` where a file cannot be read, and
    `NoRoom`.
    """
    refusal = "another compaction of this log runs; wait for it"
    with alone(log.folder / "_compaction.lock", refusal):
        merged, into = merge(log)
        removed = remove_covered(log, settings.compact_grace_s)
        return Compacted(merged, into, removed, trim(settings, log))


def trim(settings: Settings, log: Log) -> KeptForReaders:
    """Remove what was kept for readers for long enough, or takes too much room; what is left.

    It never removes what the published file names.
    """
    before = kept_for_readers(settings)
    now = time.time()
    too_soon = 0 <= now - before.at < before.files // MANY * PAUSE_S
    if too_soon or not settings.kept.exists():
        return before
    disk = os.statvfs(settings.kept)
    most = min(settings.compact_kept_bytes, disk.f_bavail * disk.f_frsize)
    waiting = _waiting(settings, log)
    total = sum(size for _, size, _ in waiting)
    removed = 0
    for since, size, path in waiting:
        age_s = now - since
        if age_s < settings.compact_grace_s or (age_s < settings.compact_kept_s and total <= most):
            break
        with suppress(FileNotFoundError):
            crash.point("compact.to_trim")
            os.unlink(path)
            crash.point("compact.trimmed")
        total -= size
        removed += 1
    kept = KeptForReaders(len(waiting) - removed, total, now)
    crash.point("compact.to_note")
    (settings.kept / NOTE).write_text(json.dumps(asdict(kept)))
    crash.point("compact.noted")
    rights.share(settings.kept / NOTE)
    return kept


def kept_for_readers(settings: Settings) -> KeptForReaders:
    """What the last `trim` has left."""
    try:
        return KeptForReaders(**json.loads((settings.kept / NOTE).read_bytes()))
    except (OSError, ValueError, TypeError):  # not yet, or cut off by a kill
        return KeptForReaders()


def _waiting(settings: Settings, log: Log) -> list[tuple[float, int, str]]:
    """When each file has gone from the log, its bytes on the disk and its path; oldest first."""
    found = []
    for folder in settings.kept.glob("*/partition=*"):
        partition = int(folder.name.partition("=")[2])
        with os.scandir(folder) as files:
            for file in files:
                with suppress(FileNotFoundError):
                    found.append((folder.parent.name, partition, file, file.stat()))
    # In this order: what is linked meanwhile is not among the found ones.
    log_has = {(n, file.path.name) for n in range(log.partitions) for file in log.all_files(n)}
    published = _published_names(settings)
    return sorted(
        (about.st_ctime, about.st_blocks * 512, file.path)
        for identity, partition, file, about in found
        if (partition, file.name) not in published
        and not (identity == log.identity and (partition, file.name) in log_has)
    )


def _published_names(settings: Settings) -> set[tuple[int, str]]:
    """Partition and name of each file that the published views read."""
    if not settings.published.exists():
        return set()
    try:
        with held_in(settings.published) as held:
            return held.files()
    except duckdb.Error as error:
        raise NotAvailable(
            f"{settings.published} does not say which files it reads ({one_line(error)});"
            " none is removed until the pipeline has published again"
        ) from None
