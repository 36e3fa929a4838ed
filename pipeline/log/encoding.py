"""A table as the bytes of a Parquet file."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ingest.envelope import ENVELOPE
from pipeline.log.inputs import Inputs

ROW_GROUP = 131_072

PACKED_ROWS = 1000
"""A smaller commit is not compressed: to set zstd up for each column takes 1 ms of it, and as much
again of each reader, and it soon becomes part of a larger file."""

_PACKED = {"compression": "zstd", "compression_level": 1}


RUN = b"foldlog.run"
"""In the footer of a commit: which run of which process wrote it."""

RUNS = b"foldlog.runs"
"""In the footer of a compacted file: position → the run that wrote the rows from there on."""


INPUTS = b"foldlog.inputs"
"""In the footer of each file: how far the inputs were read as of its end; see `log.inputs`."""


_DELTA = {
    "position": "DELTA_BINARY_PACKED",
    "stream_id": "DELTA_BYTE_ARRAY",
    "recorded_at": "DELTA_BINARY_PACKED",
    "occurred_at": "DELTA_BINARY_PACKED",
}


_UNLIKELY_TO_REPEAT = {"command_id", "payload"}


def _run_of(path: Path) -> str:
    """Which run has written a commit."""
    with suppress(OSError, pa.ArrowException):  # it is gone, or damaged: then it has no name
        about = pq.read_metadata(path).metadata or {}
        return (about.get(RUN) or b"").decode() or "another writer"
    return "another writer"


def inputs_in(metadata: pq.FileMetaData) -> Inputs:
    """Raises `ValueError`, `TypeError` or `KeyError` where the footer does not say it."""
    return Inputs.decoded((metadata.metadata or {})[INPUTS])


def runs_in(metadata: pq.FileMetaData, first: int) -> dict[int, str]:
    """Position → the run that wrote the rows from there on; "" where the footer does not say it.

    Raises `ValueError` where it cannot be read. `first` is the file's first position.
    """
    about = metadata.metadata or {}
    if RUNS in about:
        return {int(at): run for at, run in json.loads(about[RUNS]).items()}
    return {first: about.get(RUN, b"").decode()}


def encoded(rows: pa.Table, inputs: Inputs, run: str = "") -> bytes:
    """A commit's rows. A small one is encoded for speed, a large one for size."""
    about = {INPUTS: inputs.encoded()} | ({RUN: run.encode()} if run else {})
    packing = _PACKED if len(rows) >= PACKED_ROWS else {"compression": "none"}
    return _encoded(rows.schema, [rows], about, packing)


def encoded_compacted(
    schema: pa.Schema, pieces: Iterable[pa.Table], inputs: Inputs, runs: Mapping[int, str]
) -> bytes:
    """The rows of many commits, encoded for size; it holds only a row group of them at a time.

    A command id takes 20 of the 27 bytes that an event of the cart needs. A piece may lack columns
    of the schema. A reader of one aggregate skips row groups by their Bloom filters, one of some
    time by their ranges, since rows are in the order of time.
    """
    options = {**_PACKED, "bloom_filter_options": {"aggregate_id": {"ndv": ROW_GROUP}}}
    about = {INPUTS: inputs.encoded(), RUNS: json.dumps(runs).encode()}
    return _encoded(schema, _groups(schema, pieces), about, options)


def _groups(schema: pa.Schema, pieces: Iterable[pa.Table]) -> Iterator[pa.Table]:
    waiting = schema.empty_table()
    for piece in pieces:
        waiting = pa.concat_tables([waiting, piece], promote_options="default")
        while len(waiting) >= ROW_GROUP:
            yield waiting.slice(0, ROW_GROUP)
            waiting = waiting.slice(ROW_GROUP)
    if len(waiting):
        yield waiting


def _encoded(
    schema: pa.Schema,
    tables: Iterable[pa.Table],
    about: Mapping[bytes, bytes],
    more: Mapping[str, Any],
) -> bytes:
    names = schema.names
    buffer = io.BytesIO()
    options: dict[str, Any] = {
        "use_dictionary": [n for n in names if n not in _DELTA and n not in _UNLIKELY_TO_REPEAT],
        "column_encoding": {n: e for n, e in _DELTA.items() if n in ENVELOPE.names},
        "write_page_checksum": True,
        "store_schema": False,
        **more,
    }
    with pq.ParquetWriter(buffer, schema, **options) as writer:
        for table in tables:
            writer.write_table(table, row_group_size=ROW_GROUP)
        writer.add_key_value_metadata(dict(about))
    return buffer.getvalue()
