"""Parquet files for everyone else: whole, of one moment, and swapped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from ingest import crash
from pipeline.settings import Settings
from tests.running import Up, foldlog, sorted_rows, wait_for
from tests.shopping import shopping


def exported(settings: Settings) -> dict[str, int]:
    """The files, and how many rows each has."""
    return {path.stem: len(pq.read_table(path)) for path in settings.exported.glob("*.parquet")}


def published(settings: Settings, names: list[str]) -> dict[str, int]:
    with duckdb.connect(str(settings.published), read_only=True) as db:
        return {name: len(sorted_rows(db, f"FROM {name}")) for name in names}


def test_every_read_model_is_a_parquet_file_after_a_while_and_at_the_end(
    settings: Settings, up: Callable[..., Up]
) -> None:
    settings = settings.model_copy(update={"export_interval_s": 0.2})
    pipeline = up(settings)
    with pipeline.ready() as producer:
        producer.send_many(shopping(2_000))
        pipeline.settle()
        carts = settings.exported / "carts.parquet"
        wait_for(lambda: carts.exists() and exported(settings)["carts"] > 0, "an export")
        producer.send_many(c | {"command_id": "x" + c["command_id"]} for c in shopping(500, seed=9))
    pipeline.settle()
    assert pipeline.stop() == 0, pipeline.errors()
    found = exported(settings)
    assert found == published(settings, [*found])
    assert {"carts", "cart_items", "product_daily", "sales_monthly"} <= found.keys()
    with duckdb.connect(str(settings.published), read_only=True) as db:
        for name in found:
            path = settings.exported / f"{name}.parquet"
            assert sorted_rows(db, f"FROM '{path}'") == sorted_rows(db, f"FROM {name}")


@pytest.mark.parametrize("point", ["export.to_rename", "export.renamed"])
def test_an_export_that_dies_leaves_whole_files(
    settings: Settings, up: Callable[..., Up], point: str, tmp_path: Path
) -> None:
    pipeline = up(settings)
    with pipeline.ready() as producer:
        producer.send_many(shopping(300))
    pipeline.settle()
    pipeline.stop()
    assert not settings.exported.exists()
    (first, *_) = foldlog(settings, "export").stdout.splitlines()
    assert first.startswith(str(settings.exported / "cart_items.parquet"))
    (settings.exported / "removed.parquet").write_bytes(b"of a read model that is no more")
    died = foldlog(settings, "export", environment={crash.VARIABLE: f"{point}:3"})
    assert died.returncode == crash.EXIT_CODE
    (settings.exported / "removed.parquet").unlink()
    assert exported(settings) == published(settings, [*exported(settings)])
    assert foldlog(settings, "export").returncode == 0
    assert not list(settings.exported.glob("*.next"))
