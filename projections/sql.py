"""What SQL texts are made of: names, strings, types and values, as DuckDB takes them."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa


def quoted(text: str) -> str:
    """A SQL string."""
    return "'" + text.replace("'", "''") + "'"


def named(name: str) -> str:
    """A SQL identifier: a domain may call its fields what it likes."""
    return '"' + name.replace('"', '""') + '"'


_SQL_TYPES = {
    pa.string(): "VARCHAR",
    pa.binary(): "BLOB",
    pa.bool_(): "BOOLEAN",
    pa.int16(): "SMALLINT",
    pa.int32(): "INTEGER",
    pa.int64(): "BIGINT",
    pa.float64(): "DOUBLE",
    pa.timestamp("us"): "TIMESTAMP",
    pa.date32(): "DATE",
    pa.time64("us"): "TIME",
}


def sql_type(column: pa.DataType) -> str:
    """DuckDB's name for a column type of the log."""
    if pa.types.is_decimal(column):
        return f"DECIMAL({column.precision}, {column.scale})"
    if pa.types.is_list(column):
        return f"{sql_type(column.value_type)}[]"
    if pa.types.is_struct(column):
        return f"STRUCT({', '.join(f'{named(f.name)} {sql_type(f.type)}' for f in column)})"
    return _SQL_TYPES[column]


def literal(value: Any, column: pa.DataType) -> str:
    """SQL for a value of a column, as `ingest.columns.arrays.array_of` takes it."""
    if value is None:
        sql = "NULL"
    elif pa.types.is_list(column):
        sql = f"[{', '.join(literal(one, column.value_type) for one in value)}]"
    elif pa.types.is_struct(column):
        parts = (f"{quoted(f.name)}: {literal(value[f.name], f.type)}" for f in column)
        sql = f"{{{', '.join(parts)}}}"
    elif pa.types.is_binary(column):
        sql = f"unhex({quoted(value.hex())})"
    elif pa.types.is_timestamp(column):
        sql = quoted(str(datetime(1970, 1, 1) + value))
    else:
        sql = quoted(f"{value:f}" if isinstance(value, Decimal) else str(value))
    return f"CAST({sql} AS {sql_type(column)})"
