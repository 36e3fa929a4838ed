"""Arrays and tables of Arrow from values of columns, and back."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

import pyarrow as pa

from ingest.columns.column import TIME


def array_of(values: Iterable[Any], arrow: pa.DataType) -> pa.Array:
    """A column of what `Column.to_log` gives: times as durations since 1970.

    Of datetimes Arrow would ask each for its offset, which takes ten times as long.
    """
    spans = _spans(arrow)
    array = pa.array(values, spans)
    return array if spans is arrow else array.view(arrow)


def table_of(columns: Iterable[Any], schema: pa.Schema) -> pa.Table:
    """Columns as Arrow's or as values of the schema's types, in its order."""
    arrays = [
        column if isinstance(column, pa.Array) else array_of(column, field.type)
        for column, field in zip(columns, schema, strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


@cache
def _spans(arrow: pa.DataType) -> pa.DataType:
    """A type with durations in place of timestamps; the same object where there are none."""
    if arrow == TIME:
        return pa.duration("us")
    if pa.types.is_list(arrow):
        inner = _spans(arrow.value_type)
        return arrow if inner is arrow.value_type else pa.list_(pa.field("element", inner))
    if pa.types.is_struct(arrow):
        parts = [(field.name, _spans(field.type)) for field in arrow]
        return (
            arrow
            if all(t is f.type for (_, t), f in zip(parts, arrow, strict=True))
            else pa.struct(parts)
        )
    return arrow


def values_of(array: pa.Array | pa.ChunkedArray) -> list[Any]:
    """What `Column.from_log` takes: of a column of times, microseconds since 1970."""
    found: list[Any] = (
        array.cast(TIME).cast(pa.int64()) if pa.types.is_timestamp(array.type) else array
    ).to_pylist()
    return found
