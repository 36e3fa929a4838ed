"""A data folder that was moved, copied or mounted: its own log is read, and never another's."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import duckdb
import pytest

from ingest.errors import NotAvailable
from pipeline.log.log import Log
from pipeline.operate.verify import verify
from pipeline.settings import Settings
from projections import connect
from tests.running import InProcess, foldlog

LOG_RELATIONS = {
    "events": "SELECT sum(quantity) FROM events",
    "rejections": "SELECT max(aggregate_id) FROM rejections",
    "outcomes": "SELECT max(command_id) FROM outcomes WHERE outcome = 'accepted'",
}


def shop(folder: Path, number: int) -> dict[str, Any]:
    """A log and its read models, with what `LOG_RELATIONS` answer in this one."""
    pipeline = InProcess(folder, partitions=1)
    pipeline.run(
        0,
        {"type": "AddProduct", "command_id": f"c{number}", "cart_id": f"cart {number}",
         "product_id": "tea", "quantity": number, "unit_price_cents": 1},
        {"type": "CheckOut", "command_id": "x", "cart_id": f"empty {number}"},
    )  # fmt: skip
    pipeline.publish()
    pipeline.writer.close()
    return {"events": number, "rejections": f"empty {number}", "outcomes": f"c{number}"}


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return tmp_path / "old"


@pytest.fixture
def moved(old: Path, tmp_path: Path) -> dict[str, Any]:
    """The shop 7 is now in `new`, and where it was is the shop 8."""
    answers = shop(old, 7)
    shutil.move(old, tmp_path / "new")
    shop(old, 8)
    return answers


def test_our_own_connections_and_commands_read_the_folder_that_they_were_given(
    tmp_path: Path, moved: dict[str, Any]
) -> None:
    for path in (tmp_path / "new", Path(os.path.relpath(tmp_path / "new"))):
        for sandbox in (True, False):
            with connect(path / "read_models.duckdb", sandbox=sandbox) as db:
                for relation, sql in LOG_RELATIONS.items():
                    assert db.execute(sql).fetchall() == [(moved[relation],)]
    settings = Settings(data=tmp_path / "new")
    shown = foldlog(settings, "query", LOG_RELATIONS["events"], "--format", "csv")
    assert shown.stdout.splitlines()[1] == "7"
    past = foldlog(settings, "query", LOG_RELATIONS["events"], "--as-of", "2100-01-01")
    assert " 7 " in past.stdout
    again = foldlog(settings, "resubmit", "--where", "true")
    assert json.loads(again.stdout.splitlines()[0])["cart_id"] == "empty 7"


@pytest.mark.parametrize("relation", LOG_RELATIONS)
def test_a_plain_reader_gets_an_error_and_with_one_line_the_right_rows(
    tmp_path: Path, old: Path, moved: dict[str, Any], relation: str
) -> None:
    with duckdb.connect(str(tmp_path / "new" / "read_models.duckdb"), read_only=True) as db:
        for count in (LOG_RELATIONS[relation], f"SELECT count(*) FROM {relation} WHERE false"):
            with pytest.raises(duckdb.IOException, match="/kept/"):
                db.execute(count)
        db.execute(f"SET VARIABLE foldlog_kept = '{tmp_path}/new/kept'")
        assert db.execute(LOG_RELATIONS[relation]).fetchall() == [(moved[relation],)]
        db.execute(f"SET VARIABLE foldlog_kept = '{old}/kept'")
        with pytest.raises(duckdb.IOException, match="/kept/"):
            db.execute(LOG_RELATIONS[relation])


def test_a_copy_reads_itself_also_where_some_tool_copied_only_files(tmp_path: Path) -> None:
    answers = shop(tmp_path / "a", 7)
    for path in (tmp_path / "a").rglob("*"):
        if path.is_file():
            copy = tmp_path / "b" / path.relative_to(tmp_path / "a")
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
    shutil.rmtree(tmp_path / "a")
    with connect(tmp_path / "b" / "read_models.duckdb") as db:
        assert db.sql(LOG_RELATIONS["events"]).fetchall() == [(answers["events"],)]


def test_a_published_file_without_its_log_beside_it_finds_the_log(tmp_path: Path) -> None:
    answers = shop(tmp_path / "a", 7)
    shutil.copy(tmp_path / "a" / "read_models.duckdb", tmp_path / "alone.duckdb")
    with connect(tmp_path / "alone.duckdb") as db:
        assert db.execute(LOG_RELATIONS["events"]).fetchall() == [(answers["events"],)]


def test_read_models_of_another_log_are_told_and_built_anew(tmp_path: Path) -> None:
    shop(tmp_path / "a", 7)
    answers = shop(tmp_path / "b", 8)
    for name in ("read_models.duckdb", "writer.duckdb"):
        shutil.copy(tmp_path / "a" / name, tmp_path / "b" / name)
    settings = Settings(data=tmp_path / "b")
    (wrong,) = verify(settings, lambda *_: None).wrong
    assert "another log" in wrong
    with pytest.raises(NotAvailable, match="another log"):
        connect(settings.published)
    pipeline = InProcess(tmp_path / "b", partitions=1)
    pipeline.publish()
    pipeline.writer.close()
    assert verify(settings, lambda *_: None).wrong == []
    with connect(settings.published) as db:
        assert db.rows("SELECT units FROM carts") == [{"units": 8}]
        assert db.execute(LOG_RELATIONS["events"]).fetchall() == [(answers["events"],)]


def test_a_published_file_lists_the_files_that_it_needs(tmp_path: Path) -> None:
    shop(tmp_path, 7)
    log = Log.open(tmp_path / "events", domain="shop")
    with duckdb.connect(str(tmp_path / "read_models.duckdb"), read_only=True) as db:
        assert db.execute("FROM live.files").fetchall() == [
            (0, file.first, file.last, file.path.name) for file in log.files(0)
        ]
        assert db.execute("FROM live.origin").fetchall() == [(log.identity, str(tmp_path / "kept"))]


def test_what_an_older_version_has_published_is_one_error(tmp_path: Path) -> None:
    with duckdb.connect(str(tmp_path / "read_models.duckdb")) as db:
        db.execute("CREATE SCHEMA live")
    with pytest.raises(NotAvailable, match="older Foldlog"):
        connect(tmp_path / "read_models.duckdb")
