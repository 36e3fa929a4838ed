"""Rows of a log that nobody wrote: every column has several values, NULL where events may have it.

The log's schema is all that they are made from, so a SELECT can be tried before there is a log.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from decimal import Decimal
from typing import Any
from uuid import UUID

import pyarrow as pa

ROWS = 24

TEXTS = (
    ["a", "A", "b", "", None],
    ["1", "2", "30", None],
    ["2017-01-31 10:00:00", "2018-02-01", None],
    ['{"a": 1}', '{"a": [2]}', None],
)
"""Values for text; the later ones are for a SELECT that casts it to something."""


def made_rows(
    schema: pa.Schema, event_types: Sequence[str], texts: Sequence[str | None]
) -> pa.Table:
    """`ROWS` rows of the log, in which text columns have the values `texts`.

    Two rows are one command, so a cut between even rows leaves commands whole.
    """
    always: dict[str, list[Any]] = {
        "partition": [row // 2 % 2 for row in range(ROWS)],
        "position": list(range(ROWS)),
        "stream_id": [f"{row // 2}-0" for row in range(ROWS)],
        "command_id": [f"c{row // 2}" for row in range(ROWS)],
        "schema_version": [1] * ROWS,
    }

    def column(field: pa.Field, number: int) -> list[Any]:
        if field.name in always:
            return always[field.name]
        values = list(texts) if pa.types.is_string(field.type) else _values(field.type)
        if field.name == "event_type":
            values = list(event_types)
        elif field.name in ("aggregate", "aggregate_id", "recorded_at", "occurred_at"):
            values = [value for value in values if value is not None]
        return [values[(row * (1 + number % 3) + row // 5) % len(values)] for row in range(ROWS)]

    return pa.table(
        {
            field.name: pa.array(column(field, number), field.type, from_pandas=False)
            for number, field in enumerate(schema)
        }
    )


def _values(kind: pa.DataType) -> list[Any]:
    """Some values of a column type, and None."""
    found: list[Any] = []
    if pa.types.is_boolean(kind):
        found = [True, False]
    elif pa.types.is_integer(kind):
        found = [1, 2, -3, 7]
    elif pa.types.is_floating(kind):
        found = [0.5, -1.25, 4.0]  # sums of these are exact
    elif pa.types.is_decimal(kind):
        found = [Decimal(number).scaleb(-kind.scale) for number in (5, -7, 11)]
    elif pa.types.is_timestamp(kind):
        found = [
            datetime.datetime(2017, 1, 31, 23, 30, 5),
            datetime.datetime(2017, 2, 1, 0, 15),
            datetime.datetime(2018, 6, 30, 22, 0, 0, 250_000),
        ]  # the first and the last are on another day in a zone far from UTC
    elif pa.types.is_date(kind):
        found = [datetime.date(2017, 1, 31), datetime.date(2017, 2, 1), datetime.date(2018, 6, 30)]
    elif pa.types.is_time(kind):
        found = [datetime.time(10), datetime.time(23, 59, 59)]
    elif pa.types.is_duration(kind):
        found = [datetime.timedelta(days=1), datetime.timedelta(seconds=5)]
    elif pa.types.is_binary(kind):
        found = [b"a", b"\x00\xff"]
    elif isinstance(kind, pa.UuidType):
        found = [UUID(int=1), UUID(int=2)]
    elif pa.types.is_list(kind):
        inner = _values(kind.value_type)
        found = [inner[:1], inner, []]
    elif pa.types.is_struct(kind):
        found = [{f.name: _values(f.type)[i] for f in kind} for i in (0, -1)]
    return [*found, None]
