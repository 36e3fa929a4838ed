"""Every DuckDB session of ours is opened here, so that all of them read a time the same way."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias
from uuid import uuid4

import duckdb

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
    spill = _spill_folder()
    place = f"{spill}/{uuid4().hex}" if spill else ""
    return session(config={"temp_directory": place, **(config or {})})


@cache
def _spill_folder() -> str | None:
    """Where the databases of this process put what does not fit into memory, if there is a place.

    DuckDB's own default is a folder in the current one, which may be anybody's.
    """
    try:
        folder = tempfile.mkdtemp(prefix="foldlog-")
    except OSError:
        return None
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
