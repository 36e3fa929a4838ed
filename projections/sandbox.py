"""SQL that only asks: it writes nothing, reads no other files, loads and opens nothing.

DuckDB's own settings keep a query from every file but those named, from extensions and from the
network, and lock themselves. Where a file may be read they also let it be written, so what would
write is refused before it runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import duckdb

from projections.sql import quoted

_ASKING = {duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN, duckdb.StatementType.MULTI}
"""SHOW, DESCRIBE and SUMMARIZE are SELECTs to DuckDB, and some PIVOTs are MULTI."""

_WORD = re.compile(rb"\w+")

_WRITING = {"COPY", "CREATE"}
"""DuckDB 2 also takes COPY within a SELECT's WITH, at the top level of a statement."""


def shut_in(db: duckdb.DuckDBPyConnection, files: Iterable[Path | str]) -> None:
    """From now on SQL in this database reads `files` and what is attached, and nothing else."""
    listed = ", ".join(quoted(str(path)) for path in files)
    db.execute(f"SET allowed_paths = [{listed}]")
    db.execute("SET autoload_known_extensions = false")
    db.execute("SET autoinstall_known_extensions = false")
    db.execute("SET python_enable_replacements = false")
    db.execute("SET enable_external_access = false")
    db.execute("SET lock_configuration = true")


def execute(
    db: duckdb.DuckDBPyConnection, query: str, parameters: Any = None
) -> duckdb.DuckDBPyConnection:
    """`db.execute`, for what `check` lets pass."""
    *before, last = check(db, query)
    for statement in before:
        db.execute(statement)
    return db.execute(last, parameters)


def sql(
    db: duckdb.DuckDBPyConnection, query: str, parameters: Any = None
) -> duckdb.DuckDBPyRelation:
    """`db.sql`, for what `check` lets pass."""
    check(db, query)
    return db.sql(query, params=parameters)


def check(db: duckdb.DuckDBPyConnection, query: str) -> list[duckdb.Statement]:
    """The statements that one question is to DuckDB: mostly one.

    Raises `duckdb.PermissionException` for what is no question.
    """
    statements = db.extract_statements(query)
    # DuckDB 1.5 makes two of a PIVOT, the first of which nobody wrote.
    written = [s for s in statements if s.query or s.type != duckdb.StatementType.CREATE]
    if len(written) != 1:
        raise duckdb.PermissionException(
            f"there are {len(written)} questions in it; write one SELECT"
        )
    kind = written[0].type
    refused = kind.name if kind not in _ASKING else next(iter(_words(query) & _WRITING), None)
    if refused is not None:
        raise duckdb.PermissionException(
            f"{refused} is no question, and here SQL only asks; quote a column of such a name"
        )
    return statements


def _words(query: str) -> set[str]:
    """The words of a query outside of strings, quoted names and comments."""
    text, told = query.encode(), (duckdb.token_type.string_const, duckdb.token_type.comment)
    words = [_WORD.match(text, start) for start, kind in duckdb.tokenize(query) if kind not in told]
    return {word[0].decode().upper() for word in words if word}
