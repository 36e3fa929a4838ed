"""Answers on the screen and in files: tables, CSV, JSON, Parquet."""

from __future__ import annotations

import sys
import tempfile
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from ingest.errors import FoldlogError

if TYPE_CHECKING:
    import duckdb


class Format(StrEnum):
    """How an answer is printed."""

    table = "table"
    csv = "csv"
    json = "json"
    parquet = "parquet"


def print_answer(answer: duckdb.DuckDBPyRelation, output: Format) -> None:
    """Write an answer to standard output. Raises `FoldlogError` for Parquet on a terminal."""
    from projections.session import session
    from projections.sql import quoted

    if output is Format.table:
        print_table(answer)
        return
    options = {
        Format.csv: "FORMAT csv, HEADER",
        Format.json: "FORMAT json, ARRAY true",
        Format.parquet: "FORMAT parquet",
    }
    if output is Format.parquet and sys.stdout.isatty():
        raise FoldlogError("Parquet is binary; send it to a file: foldlog query … > answer.parquet")
    # Who asks cannot write. And DuckDB would cut what stdout appends to.
    with session() as writing, tempfile.NamedTemporaryFile() as file:
        writing.register("answer", answer.to_arrow_reader())
        shown = _texts(answer) if output is Format.json else "FROM answer"
        writing.execute(f"COPY ({shown}) TO {quoted(file.name)} ({options[output]})")
        with open(file.name, "rb") as written:
            sys.stdout.buffer.writelines(written)


def _texts(answer: duckdb.DuckDBPyRelation) -> str:
    """A SELECT of bytes as the text that they are; of others, with DuckDB's \\x for each."""
    from projections.sql import named

    replaced = []
    for name, kind in zip(answer.columns, answer.types, strict=True):
        if str(kind) == "BLOB":
            column = named(name)
            text = f"coalesce(try(decode({column})), CAST({column} AS VARCHAR))"
            replaced.append(f"{text} AS {column}")
    replace = f"* REPLACE ({', '.join(replaced)})" if replaced else "*"
    return f"SELECT {replace} FROM answer"


def print_table(
    result: duckdb.DuckDBPyConnection | duckdb.DuckDBPyRelation, title: str | None = None
) -> None:
    """Show a query's result on the terminal: numbers to the right, whole numbers in groups."""
    table = Table(title=title, title_justify="left", title_style="bold")
    names = [column[0] for column in result.description or []]
    rows = result.fetchall()
    for index, name in enumerate(names):
        numeric = any(isinstance(row[index], int | float) for row in rows)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_shown(value) for value in row))
    Console().print(table)


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
