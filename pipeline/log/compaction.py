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

import time
from collections.abc import Iterator, Sequence
from itertools import pairwise

from pipeline.log.log import COMPACTING, Log
from pipeline.log.names import LogFile

FAN_IN = 16
ROWS_MAX = 1_000_000
"""Rows that a file is compacted to; what is half as large is left alone."""


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


def merge(log: Log) -> tuple[int, int]:
    """Merge what there is to merge in every partition; how many files, into how many.

    The newest file of a partition is left as it is. For one process at a time. Raises `LogDamaged`
    where a file cannot be read, and `NoRoom`.
    """
    merged = into = 0
    for partition in range(log.partitions):
        log.clear_unfinished(partition, COMPACTING)
        while files := _next(log, partition):
            log.append_compacted(partition, files)
            merged += len(files)
            into += 1
    return merged, into


def remove_covered(log: Log, grace_s: float) -> int:
    """Remove files that others have covered for `grace_s` seconds; how many.

    None while anybody is `Log.reading`. For one process at a time.
    """
    removed = 0
    with log.removing() as allowed:
        for partition in range(log.partitions) if allowed else ():
            if covered := _covered(log, partition, grace_s):
                log.remove(partition, covered)
                removed += len(covered)
    return removed


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
