"""The file in which the read models' writer keeps them: a cache, made anew where it is broken."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import Any

import duckdb

from ingest import crash
from ingest.errors import DataInUse, ReadModelFailed, one_line
from projections.session import session
from projections.sql import quoted

logger = logging.getLogger("foldlog")

STORAGE_VERSION = "v1.4.0"
"""Analysts' tools open the files; the newest format would lock out all but the newest DuckDB."""


def opened(path: Path, memory_mb: int | None = None) -> duckdb.DuckDBPyConnection:
    """A connection to the file of read models at `path`, or to a new one, for writing.

    What does not fit into `memory_mb` goes into a folder beside the file; None for DuckDB's own
    limit, 80 % of the machine.

    What is committed is in the file from the next checkpoint on. There is no WAL: after a kill the
    log has what the file has not, and a WAL would write every row twice. A commit makes no
    checkpoint by itself: before a publish it would only write what the next one writes again.
    """
    config: dict[str, Any] = {
        "preserve_insertion_order": False,
        "temp_directory": f"{path}.tmp",
        "checkpoint_threshold": "1TB",
        # A flush takes memory for a moment. By default DuckDB's allocator keeps up to 128 MiB of
        # that for each thread until there is something to do again.
        "allocator_background_threads": True,
        "allocator_flush_threshold": "1MB",
        "allocator_bulk_deallocation_flush_threshold": "1MB",
    }
    if memory_mb is not None:
        config["memory_limit"] = f"{memory_mb}MiB"
    db = session(config=config)
    try:
        db.execute(
            f"ATTACH {quoted(str(path))} AS read_models"
            f" (RECOVERY_MODE no_wal_writes, STORAGE_VERSION {quoted(STORAGE_VERSION)})"
        )
    except duckdb.Error:
        db.close()
        raise
    db.execute("USE read_models")
    return db


def opened_or_new(path: Path, memory_mb: int | None = None) -> duckdb.DuckDBPyConnection:
    """A connection to the file at `path`, or to a new one in its place where it cannot be opened.

    `memory_mb` as for `opened`.

    Raises `DataInUse` while another process writes to it, and `ReadModelFailed` where no file can
    be made.
    """
    try:
        return opened(path, memory_mb)
    except duckdb.Error as error:
        if "Could not set lock" in str(error):
            raise DataInUse(
                f"another process has {path} open for writing; stop it, and start again"
            ) from None
        if path.exists():
            set_aside(path, error)
    try:
        return opened(path, memory_mb)
    except duckdb.Error as error:
        raise failed(path, "before they began", error) from None


def set_aside(path: Path, reason: object) -> None:
    """Rename the file, so that a new one is made in its place; it stays for people to look at."""
    aside = path.with_suffix(f".broken-{time.time_ns()}")
    crash.point("aside.to_rename")
    os.replace(path, aside)
    crash.point("aside.renamed")
    logger.warning(
        "the read models' file cannot be used (%s); it is now %s; a new one is built",
        one_line(reason), aside,
    )  # fmt: skip


def failed(path: Path, where: str, error: duckdb.Error) -> ReadModelFailed:
    """What to tell the user; a file that DuckDB gives up on is out of the next start's way."""
    if isinstance(error, duckdb.FatalException | duckdb.InternalException):
        set_aside(path, error)
    return ReadModelFailed(
        f"read models stopped {where}: {one_line(error)};"
        " no event is skipped: mend that, and start again"
    )
