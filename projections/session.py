"""Every DuckDB session of ours is opened here, so that all of them read a time the same way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb


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
