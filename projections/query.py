"""Reading the published file."""

from __future__ import annotations

from pathlib import Path

import duckdb

from ingest.errors import NotAvailable


def connect(path: Path | str = "data/read_models.duckdb") -> duckdb.DuckDBPyConnection:
    """A read-only connection to the published file. Raises `NotAvailable` where there is none."""
    if not Path(path).exists():
        raise NotAvailable(
            f"there is no {path} yet; start `foldlog up`, or name another with --data"
        )
    return duckdb.connect(str(path), read_only=True)
