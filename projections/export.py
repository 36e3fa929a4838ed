"""Read models as Parquet files, for pandas, Polars, Spark and whatever reads no DuckDB.

    parquet/carts.parquet

Each file is written beside and renamed, so a reader meets the old one or the new one. All are of
one moment, that of the published file that they were made from.
"""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path

import duckdb

from ingest import crash
from ingest.errors import FoldlogError, NoRoom
from projections.model import RELATIONS
from projections.query import ReadModels
from projections.relations import named, quoted

logger = logging.getLogger("foldlog")


def export(published: Path, folder: Path) -> list[Path]:
    """Write every published read model into `folder`, and remove what is none any more.

    Raises `NotAvailable` where nothing is published, and `NoRoom` where it cannot be written.
    """
    try:
        folder.mkdir(exist_ok=True)
        with ReadModels(published) as models:
            db = models.newest
            shown = "SELECT view_name FROM duckdb_views() WHERE database_name = 'read_models'"
            names = db.execute(f"{shown} AND schema_name = 'main' AND NOT internal").fetchall()
            paths = [folder / f"{n}.parquet" for (n,) in sorted(names) if n not in RELATIONS]
            for path in paths:
                beside = quoted(str(_beside(path)))
                db.execute(f"COPY (FROM {named(path.stem)}) TO {beside} (FORMAT parquet)")
        for path in paths:
            crash.point("export.to_rename")
            os.replace(_beside(path), path)
            crash.point("export.renamed")
        for path in folder.iterdir():
            if path not in paths:
                path.unlink()
    except (OSError, duckdb.Error) as error:
        reason = " ".join(str(error).split())
        raise NoRoom(f"the read models cannot be written to {folder}: {reason}") from None
    return paths


def _beside(path: Path) -> Path:
    return path.with_suffix(".next")


class Exporter:
    """Exports every `interval_s` seconds while it is open, and once more when it is closed."""

    def __init__(self, published: Path, folder: Path, interval_s: float) -> None:
        self._published = published
        self._folder = folder
        self._interval_s = interval_s
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="export", daemon=True)

    def __enter__(self) -> Exporter:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._thread.join()

    def _run(self) -> None:
        done = 0
        while True:
            closing = self._closing.wait(self._interval_s)
            with_changes = self._published.exists() and self._published.stat().st_mtime_ns
            if with_changes and with_changes != done:
                done = with_changes
                try:
                    export(self._published, self._folder)
                except FoldlogError as error:  # whoever needs the files is told; events go on
                    logger.warning("%s", error)
            if closing:
                return
