"""One published file as a database to ask, with its own log's files wherever the data is now."""

from __future__ import annotations

import os
import time
from pathlib import Path

import duckdb

from ingest.errors import NotAvailable
from projections import sandbox as sandboxed
from projections.held import Held
from projections.relations import KEPT_VARIABLE, path_in_kept
from projections.session import Config, in_memory
from projections.sql import quoted


class Published:
    """One published file, in a DuckDB of its own.

    Not `duckdb.connect(path)`: within a process DuckDB opens one name once, and would go on showing
    the file that has been replaced.
    """

    def __init__(self, path: Path, sandbox: bool, config: Config | None) -> None:
        """Raises `NotAvailable` where it is not there, or its files of the log are not."""
        self.looked_at = time.monotonic()
        """No file that was published before this is newer."""
        self.seen = stamp(path)
        self.idle: list[duckdb.DuckDBPyConnection] = []
        """Cursors that may be used again."""
        self.db = in_memory(config)
        self.db.execute(f"ATTACH {quoted(str(path))} AS read_models (READ_ONLY)")
        self._begin = ["USE read_models"]
        self.db.execute("USE read_models")
        held = Held(self.db)
        try:
            identity, folder = held.origin() or ("", "")
        except duckdb.CatalogException:
            raise NotAvailable(
                f"{path} was published by an older Foldlog; start `foldlog up` once"
            ) from None
        self.positions = held.positions()
        here = _kept_beside(path, identity) or folder
        if here != folder:  # the data was copied, moved or mounted
            self._begin.append(f"SET VARIABLE {KEPT_VARIABLE} = {quoted(here)}")
            self.db.execute(self._begin[-1])
        if sandbox:
            files = (path_in_kept(identity, *file) for file in held.files())
            sandboxed.shut_in(self.db, (os.path.join(here, file) for file in files))

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """Another connection to the same: a DuckDB connection has one result, for one thread."""
        cursor = self.db.cursor()
        for statement in self._begin:
            cursor.execute(statement)
        return cursor


def stamp(path: Path) -> tuple[int, int]:
    """What tells one published file from the next: its inode, and when it was made (ns since 1970).

    Raises `NotAvailable` where there is none.
    """
    try:
        found = path.stat()
    except FileNotFoundError:
        raise NotAvailable(
            f"there is no {path} yet; start `foldlog up`, or name another with --data"
        ) from None
    return found.st_ino, found.st_mtime_ns


def _kept_beside(path: Path, identity: str) -> str | None:
    """The log's files in the same data directory, if they are to be seen."""
    folder = os.path.join(os.path.dirname(os.path.abspath(path)), "kept")
    if not os.access(folder, os.X_OK):
        return None
    if not os.path.isdir(os.path.join(folder, identity)):
        raise NotAvailable(
            f"{path} was made from another log than the files in {folder};"
            " `foldlog up` makes a new one at its start"
        )
    return folder
