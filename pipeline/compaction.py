"""Compaction: small commits become large files, in the background, and safe to kill at any point.

The large file is in the log, durably, before any that it covers is removed; a reader takes the
widest file for each position, so it never sees a gap or a row twice. Covered files go once they
have been covered for a while, no `Log.reading` is open, and the published file names none of them.

Files are merged by size, as in a log-structured merge tree: `FAN_IN` neighbours of one size class
become one of the next. So each row is written a few times, and the number of files grows with the
logarithm of the number of commits.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import duckdb

from ingest import crash
from ingest.errors import NotAvailable, one_line
from pipeline.lock import alone
from pipeline.log import COMPACTING, Log, LogFile
from pipeline.settings import Settings

FAN_IN = 16
ROWS_MAX = 1_000_000
"""Rows that a file is compacted to; what is half as large is left alone."""


@dataclass(frozen=True, slots=True)
class Compacted:
    """What one round did."""

    merged: int
    into: int
    removed: int


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


def compact(settings: Settings, log: Log, *, kept_s: float) -> Compacted:
    """Merge what there is to merge in every partition, and remove what is covered for long enough.

    The newest file of a partition is left as it is. Raises `DataInUse` while another one compacts,
    and `LogDamaged` where a file cannot be read.
    """
    merged = into = removed = 0
    refusal = "another compaction of this log runs; wait for it"
    with alone(log.folder / "compaction.lock", refusal):
        for partition in range(log.partitions):
            log.clear_unfinished(partition, COMPACTING)
            while files := _next(log, partition):
                log.append_compacted(partition, files)
                merged += len(files)
                into += 1
        named = _published_names(settings)
        with log.removing() as allowed:
            for partition in range(log.partitions) if allowed else ():
                for file in _covered(log, partition, kept_s):
                    if file.path.name not in named.get(partition, ()):
                        crash.point("compact.to_remove")
                        os.unlink(file.path)
                        crash.point("compact.removed")
                        removed += 1
    return Compacted(merged, into, removed)


def _next(log: Log, partition: int) -> list[LogFile]:
    files = log.files(partition)
    chosen = choose([after.first - file.first for file, after in pairwise(files)])
    return files[chosen.start : chosen.stop] if chosen else []


def _covered(log: Log, partition: int, kept_s: float) -> list[LogFile]:
    """The files that no reader needs any more: another has covered them for `kept_s` seconds."""
    files = log.all_files(partition)
    now = time.time()
    wide = [f for f in files if f.last is not None and f.path.stat().st_mtime + kept_s <= now]
    return [
        file
        for file in files
        if any(
            w != file and w.covers(file.first) and (file.last is None or w.covers(file.last))
            for w in wide
        )
    ]


def _published_names(settings: Settings) -> dict[int, set[str]]:
    """Partition → names of the files that the published views read."""
    names: dict[int, set[str]] = {}
    if settings.published.exists():
        try:
            with duckdb.connect(str(settings.published), read_only=True) as db:
                shown = "SELECT sql FROM duckdb_views() WHERE schema_name = 'live'"
                views = "".join(sql for (sql,) in db.execute(shown).fetchall())
        except duckdb.Error as error:
            raise NotAvailable(
                f"{settings.published} does not say which files it reads ({one_line(error)});"
                " none is removed until the pipeline has published again"
            ) from None
        for partition, name in re.findall(r"/partition=(\d+)/([\d-]+\.parquet)'", views):
            names.setdefault(int(partition), set()).add(name)
    return names
