"""Events, rejections and outcomes as folders of Parquet files, for whatever reads no DuckDB.

    parquet/events/partition=3/00000000000000000000.parquet    begins at position 0 of partition 3

Each row is in one file at any moment. What is new since the last time goes into a new file, or into
the last one as long as that is small, which is then written anew and put in its place. A file's
footer says up to where it goes; only where the log or the domain's code is no longer what it was
made from it is removed, and made again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from ingest import crash, durable, rights
from ingest.domain import Domain
from projections.model import RELATIONS
from projections.relations import LogFiles, Positions, with_relations
from projections.session import session
from projections.sql import quoted
from projections.upcast import current_rows, upcast

FORMAT = "1"

ROWS_MIN = 131_072
"""A file that holds fewer rows of the log is written anew when there are more."""

ROWS_MAX = 1_000_000

KEY = "foldlog"


@dataclass(frozen=True, slots=True)
class _About:
    """What a file's footer says of it."""

    first: int
    until: int
    """Position after the last one that it holds."""
    stream_id: str
    """Of the row before `until`, which tells one log from another."""
    code: str


def append(
    domain: Domain, log: LogFiles, until: Positions, folder: Path, threads: int | None = None
) -> list[Path]:
    """Bring the folders up to these positions of the log, which are the ends of commits.

    Returns the files that were written. Raises `duckdb.Error` or `OSError`.
    """
    written = []
    with session() as db, log.reading():
        if threads:
            db.execute(f"SET threads = {threads}")
        for relation in sorted(RELATIONS):
            for partition, end in until.items():
                dataset = _Dataset(db, domain, log, folder, relation, partition)
                written += [dataset.write(first, last) for first, last in dataset.missing(end)]
    return written


def is_there(folder: Path) -> bool:
    """Whether anything was ever written."""
    return any((folder / relation).exists() for relation in RELATIONS)


class _Dataset:
    """The files of one relation and one partition."""

    def __init__(
        self,
        db: duckdb.DuckDBPyConnection,
        domain: Domain,
        log: LogFiles,
        folder: Path,
        relation: str,
        partition: int,
    ) -> None:
        self._db = db
        self._domain = domain
        self._log = log
        self._folder = folder / relation / f"partition={partition}"
        self._beside = folder / f"{relation}.next"
        self._relation = relation
        self._partition = partition
        stored = upcast(domain, "FROM stored")
        code = f"{FORMAT} {domain.schema} {with_relations(domain.schema, stored, relation)}"
        self._code = sha256(code.encode()).hexdigest()

    def missing(self, until: int) -> Iterator[tuple[int, int]]:
        """The ranges of positions to write, up to `until`, each from the first of a commit."""
        since = self._since(until)
        firsts = [f.first for f in self._log.files(self._partition, since)]
        begin = end = since
        for first in [*(first for first in firsts if since < first < until), until]:
            if begin < end and first - begin > ROWS_MAX:
                yield begin, end
                begin = end
            end = first
        if begin < end:
            yield begin, end

    def _since(self, until: int) -> int:
        """From where to write; removes what is not of this log and this code."""
        files = sorted(self._folder.glob("*.parquet"))
        while files:
            about = _about(files[-1])
            if about is not None and self._is_current(about, until):
                small = about.until - about.first < ROWS_MIN and about.until < until
                return about.first if small else about.until
            crash.point("dataset.to_remove")
            os.unlink(files.pop())
            crash.point("dataset.removed")
        return 0

    def _is_current(self, about: _About, until: int) -> bool:
        return (
            about.code == self._code
            and about.until <= until
            and about.stream_id == self._stream_id(about.until - 1)
        )

    def _rows(self, first: int, until: int) -> str:
        partition = self._partition
        return current_rows(self._domain, self._log, {partition: first}, {partition: until})

    def _stream_id(self, position: int) -> str:
        rows = self._rows(position, position + 1)
        found = self._db.execute(f"SELECT stream_id FROM ({rows})").fetchone()
        return str(found[0]) if found else ""

    def write(self, first: int, until: int) -> Path:
        """Write a file with what these positions hold of the relation, be it nothing."""
        for made in (self._folder.parent, self._folder):
            made.mkdir(exist_ok=True)
            rights.share(made)
        order = " ORDER BY first_position" if self._relation == "outcomes" else ""
        shown = f"SELECT * EXCLUDE (partition) FROM {self._relation}{order}"
        query = with_relations(self._domain.schema, self._rows(first, until), shown)
        about = _About(first, until, self._stream_id(until - 1), self._code)
        note = f"{{{KEY}: {quoted(json.dumps(asdict(about)))}}}"
        options = f"FORMAT parquet, COMPRESSION zstd, KV_METADATA {note}"
        self._db.execute(f"COPY ({query}) TO {quoted(str(self._beside))} ({options})")
        rights.share(self._beside)
        path = self._folder / f"{first:020}.parquet"
        with open(self._beside, "rb") as file:
            crash.point("dataset.to_fsync")
            os.fsync(file.fileno())
            crash.point("dataset.fsynced")
        crash.point("dataset.to_rename")
        os.replace(self._beside, path)
        crash.point("dataset.renamed")
        durable.fsync_folder(self._folder)  # in order: only the last file is looked at again
        crash.point("dataset.done")
        return path


def _about(path: Path) -> _About | None:
    """None where the file is damaged, or not of this kind."""
    try:
        return _About(**json.loads(pq.read_metadata(path).metadata[KEY.encode()]))
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError):
        return None
