"""Files of the log a row group at a time, so that a large one takes memory for one of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from ingest.errors import LogDamaged, one_line
from pipeline.log.disk import MEND
from pipeline.log.names import LogFile


def pieces_of(file: LogFile, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """The rows of one file in order. Raises `LogDamaged`, which names it."""
    try:
        with pq.ParquetFile(file.path, page_checksum_verification=True) as parquet:
            held = set(parquet.schema_arrow.names)
            wanted = None if columns is None else [c for c in columns if c in held]
            for group in range(parquet.num_row_groups):
                yield parquet.read_row_group(group, wanted, use_threads=False)
    except (OSError, pa.ArrowException) as error:
        raise unreadable(file, error) from None


def joined(files: Sequence[LogFile]) -> Iterator[pa.Table]:
    """The rows of adjacent files in order. Raises `LogDamaged` where they do not join."""
    expected = files[0].first
    for file in files:
        if file.first != expected:
            raise LogDamaged(f"positions are missing before {file.path}; {MEND}")
        for rows in pieces_of(file):
            expected += len(rows)
            yield rows


def head(pieces: Iterator[pa.Table], count: int) -> Iterator[pa.Table]:
    """The first `count` of their rows."""
    for rows in pieces:
        yield rows.slice(0, count)
        count -= len(rows)
        if count <= 0:
            return


def schema_of(files: Sequence[LogFile]) -> pa.Schema:
    """The columns that any of the files has. Raises `LogDamaged`."""
    found = []
    for file in files:
        try:
            found.append(pq.read_schema(file.path))
        except (OSError, pa.ArrowException) as error:
            raise unreadable(file, error) from None
    return pa.unify_schemas(found, promote_options="default")


def unreadable(file: LogFile, error: Exception) -> LogDamaged:
    """What to tell the user of a file that the reader refuses."""
    return LogDamaged(f"{file.path} cannot be read ({one_line(error)}); {MEND}")
