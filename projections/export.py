"""Read models as Parquet files, for pandas, Polars, Spark and whatever reads no DuckDB.

    parquet/carts.parquet

Each file is written beside and renamed, so a reader meets the old one or the new one. All are of
one moment, that of the published file that they were made from.
"""

from __future__ import annotations

import os
from pathlib import Path

import duckdb

from ingest import crash
from ingest.errors import NoRoom, one_line
from projections.model import RELATIONS
from projections.query import ReadModels
from projections.relations import named, quoted


def export(published: Path, folder: Path) -> list[Path]:
    """Write every published read model into `folder`, and remove what is none any more.

    The files' time is that of the publish.

    Raises `NotAvailable` where nothing is published, and `NoRoom` where it cannot be written.
    """
    try:
        with ReadModels(published) as models:
            db, moment = models.newest, models.published_ns
            folder.mkdir(exist_ok=True)
            shown = "SELECT view_name FROM duckdb_views() WHERE database_name = 'read_models'"
            names = db.execute(f"{shown} AND schema_name = 'main' AND NOT internal").fetchall()
            paths = [folder / f"{n}.parquet" for (n,) in sorted(names) if n not in RELATIONS]
            for path in paths:
                beside = quoted(str(_beside(path)))
                db.execute(f"COPY (FROM {named(path.stem)}) TO {beside} (FORMAT parquet)")
                os.utime(_beside(path), ns=(moment, moment))
        for path in paths:
            crash.point("export.to_rename")
            os.replace(_beside(path), path)
            crash.point("export.renamed")
        for path in folder.iterdir():
            if path not in paths:
                path.unlink()
    except (OSError, duckdb.Error) as error:
        raise NoRoom(f"the read models cannot be written to {folder}: {one_line(error)}") from None
    return paths


def _beside(path: Path) -> Path:
    return path.with_suffix(".next")


def export_changes(published: Path, folder: Path) -> None:
    """The same, where some file is older than what is published, or there is none."""
    exported = min((p.stat().st_mtime_ns for p in folder.glob("*.parquet")), default=0)
    if published.exists() and published.stat().st_mtime_ns > exported:
        export(published, folder)
