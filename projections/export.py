"""Read models as Parquet files, for pandas, Polars, Spark and whatever reads no DuckDB.

    parquet/carts.parquet

Each file is written beside and renamed, so a reader meets the old one or the new one. All are of
one moment, that of the published file that they were made from.
"""

from __future__ import annotations

import os
from pathlib import Path

import duckdb

from ingest import crash, rights
from ingest.errors import NoRoom, one_line
from projections.connection import ReadModels
from projections.held import Held
from projections.model import TAKEN
from projections.relations import Positions
from projections.sql import named, quoted


def export(published: Path, folder: Path) -> tuple[list[Path], Positions]:
    """Write every published read model into `folder`, and remove what is none any more.

    Returns the files, and up to where they hold the log. Their time is that of the publish.

    Raises `NotAvailable` where nothing is published, and `NoRoom` where it cannot be written.
    """
    try:
        with ReadModels(published, sandbox=False) as models:
            db, moment = models.newest, models.published_ns
            positions = Held(db).positions()
            folder.mkdir(exist_ok=True)
            rights.share(folder)
            shown = "SELECT view_name FROM duckdb_views() WHERE database_name = 'read_models'"
            names = db.execute(f"{shown} AND schema_name = 'main' AND NOT internal").fetchall()
            paths = [folder / f"{n}.parquet" for (n,) in sorted(names) if n not in TAKEN]
            for path in paths:
                beside = quoted(str(_beside(path)))
                db.execute(f"COPY (FROM {named(path.stem)}) TO {beside} (FORMAT parquet)")
                os.utime(_beside(path), ns=(moment, moment))
                rights.share(_beside(path))
        for path in paths:
            crash.point("export.to_rename")
            os.replace(_beside(path), path)
            crash.point("export.renamed")
        for path in folder.iterdir():
            if path not in paths and path.is_file():
                crash.point("export.to_remove")
                path.unlink()
                crash.point("export.removed")
    except (OSError, duckdb.Error) as error:
        raise NoRoom(f"the read models cannot be written to {folder}: {one_line(error)}") from None
    return paths, positions


def _beside(path: Path) -> Path:
    return path.with_suffix(".next")


def is_due(published: Path, folder: Path) -> bool:
    """Whether some file is older than what is published, or there is none."""
    exported = min((p.stat().st_mtime_ns for p in folder.glob("*.parquet")), default=0)
    return published.exists() and published.stat().st_mtime_ns > exported
