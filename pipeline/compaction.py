"""Compaction: small commits become large files, in the background, and safe to kill at any point.

The large file is in the log, durably, before any that it covers is removed; a reader takes the
widest file for each position, so it never sees a gap or a row twice. Covered files go from the log
once they have been covered for a while and no `Log.reading` is open. Those that were published stay
under another name, where no one who lists the log meets them, for readers that have an older
published file open; see `projections.kept`.

Files are merged by size, as in a log-structured merge tree: `FAN_IN` neighbours of one size class
become one of the next. So each row is written a few times, and the number of files grows with the
logarithm of the number of commits.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import pairwise

import duckdb

from ingest import crash, rights
from ingest.errors import NotAvailable, one_line
from pipeline.lock import alone
from pipeline.log import COMPACTING, Log, LogFile
from pipeline.settings import Settings
from projections.relations import quoted
from projections.session import session

FAN_IN = 16
ROWS_MAX = 1_000_000
"""Rows that a file is compacted to; what is half as large is left alone."""


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


def choose(rows: Sequence[int]) -> range | None:
    """Which of the files, given their numbers of rows in order, to merge next: neighbours, or none.

    The smallest size class first, a class being a power of `FAN_IN`: when there are `FAN_IN` of it,
    when a larger file follows, so that there will be no more, or when they make a full one.
    """
    limit = 1
    while limit < ROWS_MAX:
        smaller, limit = limit, limit * FAN_IN
        for run in _runs([count < min(limit, ROWS_MAX // 2) for count in rows]):
            end, total = run.start + 1, rows[run.start]
            while end < run.stop and total + rows[end] <= ROWS_MAX:
                total += rows[end]
                end += 1
            of_the_class = sum(count >= smaller for count in rows[run.start : end])
            complete = end < len(rows)
            if end - run.start > 1 and (complete or of_the_class >= FAN_IN):
                return range(run.start, end)
    return None


def _runs(small: Sequence[bool]) -> Iterator[range]:
    """The stretches in which all are true."""
    edges = [i for i, (a, b) in enumerate(pairwise([False, *small, False])) if a != b]
    for start, stop in zip(edges[::2], edges[1::2], strict=True):
        yield range(start, stop)


def compact(settings: Settings, log: Log) -> Compacted:
    """Merge what there is to merge in every partition, and remove what is covered for long enough.

    The newest file of a partition is left as it is. Raises `DataInUse` while another one compacts,
    `LogDamaged` where a file cannot be read, and `NoRoom`.
    """
    merged = into = removed = 0
    refusal = "another compaction of this log runs; wait for it"
    with alone(log.folder / "_compaction.lock", refusal):
        for partition in range(log.partitions):
            log.clear_unfinished(partition, COMPACTING)
            while files := _next(log, partition):
                log.append_compacted(partition, files)
                merged += len(files)
                into += 1
        with log.removing() as allowed:
            for partition in range(log.partitions) if allowed else ():
                if covered := _covered(log, partition, settings.compact_grace_s):
                    log.remove(partition, covered)
                    removed += len(covered)
        kept = trim(settings, log)
    return Compacted(merged, into, removed, kept)


def _next(log: Log, partition: int) -> list[LogFile]:
    files = log.files(partition)
    chosen = choose([after.first - file.first for file, after in pairwise(files)])
    return files[chosen.start : chosen.stop] if chosen else []


def _covered(log: Log, partition: int, grace_s: float) -> list[LogFile]:
    """The files that the log needs no more: another has covered them for `grace_s` seconds."""
    files = log.all_files(partition)
    now = time.time()
    wide = [f for f in files if f.last is not None and f.path.stat().st_mtime + grace_s <= now]
    return [
        file
        for file in files
        if any(
            w != file and w.covers(file.first) and (file.last is None or w.covers(file.last))
            for w in wide
        )
    ]


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
        with session() as db:  # not connect(path), which may show an older file
            db.execute(f"ATTACH {quoted(str(settings.published))} AS published (READ_ONLY)")
            return {*db.execute("SELECT partition, name FROM published.live.files").fetchall()}
    except duckdb.Error as error:
        raise NotAvailable(
            f"{settings.published} does not say which files it reads ({one_line(error)});"
            " none is removed until the pipeline has published again"
        ) from None
