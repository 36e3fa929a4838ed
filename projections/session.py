"""Every DuckDB session of ours is opened here, so that all of them read a time the same way."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias
from uuid import uuid4

import duckdb

from ingest import rights
from ingest.errors import NotAvailable

Config: TypeAlias = Mapping[str, Any]
"""DuckDB's settings, as `duckdb.connect` takes them."""


def session(
    path: Path | None = None, *, read_only: bool = False, config: dict[str, Any] | None = None
) -> duckdb.DuckDBPyConnection:
    """A connection to the file at `path`, or to a new database in memory, with DuckDB's settings.

    Its time zone is UTC and its calendar the Gregorian one, also for its cursors: DuckDB takes
    both from the machine otherwise (TZ, LANG), and the same SQL would give other rows there.
    """
    db = duckdb.connect(str(path) if path else ":memory:", read_only=read_only, config=config or {})
    db.execute("SET GLOBAL TimeZone = 'UTC'; SET GLOBAL Calendar = 'gregorian'")
    return db


def in_memory(config: Config | None = None) -> duckdb.DuckDBPyConnection:
    """A new database in memory, which spills into a folder of its own."""
    return session(config={"temp_directory": _spill_folder(), **(config or {})})


def _spill_folder() -> str:
    """Where a database may put what does not fit into memory, "" where there is no place for it.

    DuckDB makes it when it needs it, and removes it. Its own default is a folder in the current
    one, which may be anybody's.
    """
    try:
        return f"{rights.temporary()}/{uuid4().hex}"
    except (OSError, NotAvailable):
        return ""
