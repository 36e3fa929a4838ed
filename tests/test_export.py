"""Parquet files for everyone else: whole, of one moment, and swapped."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import duckdb
import numpy
import pandas
import polars
import pyarrow as pa
import pyarrow.dataset as pa_dataset
import pyarrow.parquet as pq
import pytest

from ingest import crash
from pipeline.settings import Settings
from projections import dataset
from projections.model import RELATIONS
from tests.running import InProcess, Up, entry, foldlog, sorted_rows, wait_for
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
        producer.send_many(shopping(500))
        pipeline.settle()
        carts = settings.exported / "carts.parquet"
        wait_for(lambda: carts.exists() and exported(settings)["carts"] > 0, "an export")
        assert not (settings.exported / "events").exists()  # nobody has asked for them
        done = foldlog(settings, "export")
        assert done.returncode == 0, done.stderr
        assert str(settings.exported / "outcomes" / "partition=3") in done.stdout
        producer.send_many(c | {"command_id": "x" + c["command_id"]} for c in shopping(200, seed=9))
    pipeline.settle()
    assert pipeline.stop() == 0, pipeline.errors()
    assert by_pyarrow(settings.exported) == by_duckdb(settings.published)
    found = exported(settings)
    assert found == published(settings, [*found])
    assert {"carts", "cart_items", "product_daily", "sales_monthly"} <= found.keys()
    with duckdb.connect(str(settings.published), read_only=True) as db:
        for name in found:
            path = settings.exported / f"{name}.parquet"
            assert sorted_rows(db, f"FROM '{path}'") == sorted_rows(db, f"FROM {name}")


Rows = dict[str, list[tuple[Any, ...]]]
"""Relation → partition, position and all else of each row, in order."""


def by_duckdb(published: Path) -> Rows:
    """What the published file says, from the log's own files."""
    with duckdb.connect() as db:
        db.execute(f"ATTACH '{published}' AS read_models (READ_ONLY)")
        db.execute("USE read_models")
        return {name: db.execute(f"FROM {name} ORDER BY ALL").fetchall() for name in RELATIONS}


def in_order(name: str, columns: dict[str, list[Any]], published: Path) -> list[tuple[Any, ...]]:
    """Rows of a table that is given by its columns, as the relation has them."""
    with duckdb.connect() as db:
        db.execute(f"ATTACH '{published}' AS read_models (READ_ONLY)")
        names = [c for c, *_ in db.execute(f"DESCRIBE read_models.{name}").fetchall()]
    assert {*columns} == {*names}
    return sorted(zip(*(columns[name] for name in names), strict=True))


def by_pyarrow(folder: Path) -> Rows:
    found = {}
    for name in RELATIONS:
        table = pa_dataset.dataset(folder / name, partitioning="hive").to_table()
        found[name] = in_order(name, table.to_pydict(), folder.parent / "read_models.duckdb")
    return found


def by_pandas(folder: Path) -> Rows:
    def plain(value: Any) -> Any:
        if isinstance(value, numpy.ndarray):
            return value.tolist()
        return None if pandas.isna(value) else value

    found = {}
    for name in RELATIONS:
        frame = pandas.read_parquet(folder / name)
        columns = {str(c): [*map(plain, frame[c])] for c in frame}
        found[name] = in_order(name, columns, folder.parent / "read_models.duckdb")
    return found


def by_polars(folder: Path) -> Rows:
    found = {}
    for name in RELATIONS:
        frame = polars.scan_parquet(folder / name).collect()
        columns = frame.to_dict(as_series=False)
        found[name] = in_order(name, columns, folder.parent / "read_models.duckdb")
    return found


def export_log(pipeline: InProcess) -> list[Path]:
    """Bring the folders up to the end of what was published."""
    folder = pipeline.folder / "parquet"
    folder.mkdir(exist_ok=True)
    pipeline.publish()
    return dataset.append(pipeline.domain, pipeline.log, pipeline.writer.positions, folder)


def shop(pipeline: InProcess, commands: int, seed: int) -> None:
    """Commands in both partitions, some of them rejected and some unreadable."""
    numbered = [
        c | {"command_id": f"{seed}-{i}"} for i, c in enumerate(shopping(commands, seed=seed))
    ]
    broken = [b"{", {"type": "CheckOut", "command_id": f"{seed}-empty", "cart_id": "none"}]
    for number in range(2):
        mine = numbered[number::2] + broken
        for at in range(0, len(mine), 10):
            entries = [entry(seed * 10_000 + at + i, c) for i, c in enumerate(mine[at : at + 10])]
            pipeline.decide(number, entries)
    pipeline.flush()


@pytest.mark.parametrize("read_by", [by_pyarrow, by_pandas, by_polars])
def test_each_tool_reads_each_row_of_the_log_once_also_after_it_was_added_to(
    tmp_path: Path, read_by: Callable[[Path], Rows], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset, "ROWS_MIN", 30)
    monkeypatch.setattr(dataset, "ROWS_MAX", 60)
    pipeline = InProcess(tmp_path)
    for seed in range(3):
        shop(pipeline, 150, seed)
        export_log(pipeline)
        found = read_by(tmp_path / "parquet")
        assert all(found.values())
        assert found == by_duckdb(tmp_path / "read_models.duckdb")
    pipeline.writer.close()


def test_rows_that_were_exported_are_not_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset, "ROWS_MIN", 30)
    monkeypatch.setattr(dataset, "ROWS_MAX", 60)
    pipeline = InProcess(tmp_path)
    shop(pipeline, 200, 0)
    first = export_log(pipeline)
    assert len(first) >= 2 * 2 * len(RELATIONS)  # several files of each partition
    assert export_log(pipeline) == []
    before = {path: path.stat().st_ino for path in first}
    shop(pipeline, 20, 1)
    again = export_log(pipeline)
    assert len(again) == 2 * len(RELATIONS)  # the last, or one more, of each partition
    unchanged = {path: path.stat().st_ino for path in first if path not in again}
    assert unchanged.items() <= before.items()
    assert len(unchanged) >= len(first) - len(again)
    assert by_pyarrow(tmp_path / "parquet") == by_duckdb(tmp_path / "read_models.duckdb")
    pipeline.writer.close()


def test_what_a_replaced_log_or_other_code_had_written_goes_and_the_rest_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset, "ROWS_MIN", 30)
    monkeypatch.setattr(dataset, "ROWS_MAX", 60)
    pipeline = InProcess(tmp_path)
    shop(pipeline, 200, 0)
    first = export_log(pipeline)
    shutil.copytree(pipeline.log.folder, tmp_path / "backup")
    shop(pipeline, 200, 1)
    export_log(pipeline)
    pipeline.writer.close()
    shutil.rmtree(pipeline.log.folder)
    shutil.copytree(tmp_path / "backup", pipeline.log.folder)
    pipeline = InProcess(tmp_path)
    shop(pipeline, 300, 2)  # longer than what was exported
    oldest = {path: path.stat().st_ino for path in first if path.stem == f"{0:020}"}
    export_log(pipeline)
    assert by_pyarrow(tmp_path / "parquet") == by_duckdb(tmp_path / "read_models.duckdb")
    assert {path: path.stat().st_ino for path in oldest} == oldest
    monkeypatch.setattr(dataset, "FORMAT", "another code")
    assert {*export_log(pipeline)} >= {*first}
    assert by_pyarrow(tmp_path / "parquet") == by_duckdb(tmp_path / "read_models.duckdb")
    pipeline.writer.close()


def test_a_damaged_last_file_is_written_anew(tmp_path: Path) -> None:
    pipeline = InProcess(tmp_path)
    shop(pipeline, 50, 0)
    for path in export_log(pipeline):
        path.write_bytes(path.read_bytes()[:-20])
    export_log(pipeline)
    assert by_pyarrow(tmp_path / "parquet") == by_duckdb(tmp_path / "read_models.duckdb")
    pipeline.writer.close()


@pytest.mark.parametrize(
    "point", ["to_fsync", "fsynced", "to_rename", "renamed", "done", "to_remove", "removed"]
)
def test_an_export_of_the_log_that_dies_doubles_nothing(tmp_path: Path, point: str) -> None:
    pipeline = InProcess(tmp_path)
    shop(pipeline, 50, 0)
    export_log(pipeline)
    damaged = [*(tmp_path / "parquet" / "events").rglob("*.parquet")] if "remove" in point else []
    for path in damaged:
        path.write_bytes(b"not Parquet")
    shop(pipeline, 50, 1)
    published = pipeline.publish()
    pipeline.writer.close()
    settings = Settings(data=tmp_path)
    times = 1 if damaged else 3
    died = foldlog(settings, "export", environment={crash.VARIABLE: f"dataset.{point}:{times}"})
    assert died.returncode == crash.EXIT_CODE, died.stderr
    says = by_duckdb(published)
    with suppress(pa.ArrowInvalid):  # where they are still damaged
        for name, rows in by_pyarrow(tmp_path / "parquet").items():
            unlike = {*map(repr, rows)}  # a row may hold a list
            assert len(rows) == len(unlike)
            assert unlike <= {*map(repr, says[name])}
    assert foldlog(settings, "export").returncode == 0
    assert by_pyarrow(tmp_path / "parquet") == says
    assert not [p for p in (tmp_path / "parquet").rglob("*") if p.suffix not in ("", ".parquet")]


@pytest.mark.parametrize(
    "point", ["export.to_rename", "export.renamed", "export.to_remove", "export.removed"]
)
@pytest.mark.usefixtures("handled")
def test_an_export_that_dies_leaves_whole_files(settings: Settings, point: str) -> None:
    assert not settings.exported.exists()
    (first, *_) = foldlog(settings, "export").stdout.splitlines()
    assert first.startswith(str(settings.exported / "cart_items.parquet"))
    (settings.exported / "removed.parquet").write_bytes(b"of a read model that is no more")
    times = 1 if "remove" in point else 3
    died = foldlog(settings, "export", environment={crash.VARIABLE: f"{point}:{times}"})
    assert died.returncode == crash.EXIT_CODE
    (settings.exported / "removed.parquet").unlink(missing_ok=True)
    assert exported(settings) == published(settings, [*exported(settings)])
    assert foldlog(settings, "export").returncode == 0
    assert not list(settings.exported.glob("*.next"))
