"""Read models come back from the log, also while the pipeline runs, and readers never notice."""

from __future__ import annotations

import fcntl
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

from ingest import crash
from pipeline.engine.program import TOLD
from pipeline.lock import is_held
from pipeline.settings import Settings
from tests.processes import Program
from tests.running import DEADLINE_S, Up, foldlog, read, sorted_rows, wait_for
from tests.shopping import LIVED, check, shopping

OWN = """
from dataclasses import replace
from pathlib import Path
from ingest.shop import shop
own = replace(shop, read_models=Path(__file__).parent / "sql")
"""
COUNTS = "-- Events by product.\nSELECT product_id, count(*) AS n FROM events GROUP BY product_id"


@pytest.fixture
def own(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The shopping cart with read models in a folder of the test's."""
    (tmp_path / "own_carts.py").write_text(OWN)
    (tmp_path / "sql").mkdir()
    (tmp_path / "sql" / "counts.sql").write_text(COUNTS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_carts", raising=False)
    return settings.model_copy(update={"domain": "own_carts:own", "publish_interval_ms": 50})


def run(pipeline: Up, commands: list[dict[str, Any]]) -> None:
    """Until all of them are published; then it ends."""
    with pipeline.ready() as producer:
        producer.send_many(commands)
    pipeline.settle()
    pipeline.stop()


def test_a_file_that_is_new_or_changed_is_rebuilt_while_the_pipeline_runs(
    own: Settings, tmp_path: Path, up: Callable[..., Up]
) -> None:
    pipeline = up(own)
    with pipeline.ready() as producer:
        producer.send_many(shopping(1_000))
        wait_for(own.published.exists, "the first publish")
        changed = COUNTS.replace("product_id, count(*)", "product_id, 2 * count(*)")
        (tmp_path / "sql" / "counts.sql").write_text(changed)
        added = COUNTS.replace("product_id", "event_type")
        (tmp_path / "sql" / "added.sql").write_text(added)
        (tmp_path / "sql" / "shown.sql").write_text("-- A view.\nFROM added ORDER BY n")

        wrong: list[tuple[int, ...]] = []
        finished = threading.Event()

        def look() -> None:
            """A reader sees the old rows or the new ones, and always all of them."""
            while not finished.is_set():
                with duckdb.connect(str(own.published), read_only=True) as db:
                    sums = "SELECT (SELECT sum(n) FROM counts), count(*) FROM events"
                    shown, events = db.execute(sums).fetchone() or (0, 0)
                if (shown or 0) not in (events, 2 * events):
                    wrong.append((shown, events))

        reader = threading.Thread(target=look)
        reader.start()
        rebuilt = foldlog(own, "rebuild")
        producer.send_many(c | {"command_id": "x" + c["command_id"]} for c in shopping(500))
        pipeline.settle()
        finished.set()
        reader.join()
    assert rebuilt.returncode == 0, rebuilt.stderr
    assert [line.split()[0] for line in rebuilt.stdout.splitlines()] == ["added", "counts"]
    assert wrong == []
    with duckdb.connect(str(own.published), read_only=True) as db:
        for name, sql in {"added": added, "counts": changed, "shown": added}.items():
            assert sorted_rows(db, f"FROM {name}") == sorted_rows(db, sql) != []
    assert pipeline.stop() == 0, pipeline.errors()
    assert not own.rebuilt.exists()


def test_everything_is_rebuilt_from_the_log_alone(
    settings: Settings, up: Callable[..., Up]
) -> None:
    commands = shopping(1_000)
    run(up(settings), commands)
    names = [
        "carts",
        "cart_items",
        "product_daily",
        "product_prices",
        "cart_spans",
        "hourly_funnel",
    ]
    live = read(settings.published, *names)
    settings.published.unlink()
    (settings.data / "writer.duckdb").write_bytes(b"no database" * 1000)

    rebuilt = foldlog(settings, "rebuild", "--all")
    assert rebuilt.returncode == 0, rebuilt.stderr
    assert "rows in" in rebuilt.stdout
    view = foldlog(settings, "rebuild", "sales_monthly")
    assert "a view needs no rows: it shows what is in sales_daily" in view.stdout
    assert view.stdout.startswith("sales_monthly ")
    assert view.stdout in rebuilt.stdout
    assert read(settings.published, *names) == live
    check(settings, commands)
    assert foldlog(settings, "verify").returncode == 0
    nothing = foldlog(settings, "rebuild")
    assert (
        nothing.stdout == "every read model is as its declaration says; name one to build it anew\n"
    )


SOME = ["carts", "product_prices"]


@pytest.mark.parametrize(
    ("wanted", "point"),
    [*((SOME, point) for point in (
        "rebuild.to_clear", "rebuild.cleared", "rebuild.to_checkpoint", "rebuild.checkpointed",
        "rebuild.to_rename", "rebuild.renamed", "hand_over.to_remove", "hand_over.removed")),
     *((["--all"], point) for point in ("hand_over.to_rename", "hand_over.renamed"))],
)  # fmt: skip
@pytest.mark.usefixtures("handled")
def test_a_rebuild_that_dies_leaves_everything_as_it_was_or_done(
    settings: Settings, up: Callable[..., Up], wanted: list[str], point: str
) -> None:
    before = read(settings.published, *SOME)
    died = foldlog(settings, "rebuild", *wanted, environment={crash.VARIABLE: point})
    assert died.returncode == crash.EXIT_CODE
    assert read(settings.published, *SOME) == before
    pipeline = up(settings)
    with pipeline.ready() as producer:
        wait_for(lambda: not settings.rebuilt.exists(), "the rebuilt rows to be taken over")
        more = [c | {"command_id": "x" + c["command_id"]} for c in shopping(300, seed=3)]
        producer.send_many(more)
    pipeline.settle()
    check(settings, LIVED + more)
    again = foldlog(settings, "rebuild", "carts")
    assert again.returncode == 0, again.stderr
    check(settings, LIVED + more)


def test_a_read_side_that_was_started_by_hand_is_the_only_one_and_takes_rebuilt_rows_over(
    settings: Settings, up: Callable[..., Up]
) -> None:
    run(up(settings), shopping(500))
    before = read(settings.published, *SOME)
    reader = Program("pipeline.operate.read", environment=settings.as_environment())
    try:
        wait_for(lambda: is_held(settings.read_lock), "the read side to begin")
        second = Program("pipeline.operate.read", environment=settings.as_environment())
        in_use = settings.writers_file.stat().st_ino
        rebuilt = foldlog(settings, "rebuild", "--all")
        assert rebuilt.returncode == 0, rebuilt.stderr
        assert settings.writers_file.stat().st_ino == in_use, "what it writes to is still its file"
        assert read(settings.published, *SOME) == before
        assert second.wait(timeout=DEADLINE_S) == TOLD  # it has waited for the first one to end
        assert "another read side, or a rebuild, works on" in second.stderr.read_text()
    finally:
        reader.terminate()
        assert reader.wait(timeout=DEADLINE_S) == 0, reader.stderr.read_text()
    assert foldlog(settings, "verify").returncode == 0


def test_a_declaration_that_does_not_hold_leaves_the_pipeline_running(
    own: Settings, tmp_path: Path, up: Callable[..., Up]
) -> None:
    pipeline = up(own)
    with pipeline.ready() as producer:
        producer.send_many(shopping(500))
        pipeline.settle()
        (tmp_path / "sql" / "bad.sql").write_text(
            "-- Bad.\nSELECT product_id,\n  median(quantity) AS m\nFROM events GROUP BY product_id"
        )
        failed = foldlog(own, "rebuild")
        assert failed.returncode == 1
        assert failed.stderr.count("\n") == 1
        assert "bad.sql:3: median" in failed.stderr
        (tmp_path / "sql" / "bad.sql").write_text(
            "-- Bad.\nSELECT product_id::INT AS e, count(*) AS n FROM events GROUP BY ALL"
        )
        failed = foldlog(own, "rebuild")
        assert failed.returncode == 1
        assert failed.stderr.strip().endswith("readers keep the rows they have")
        producer.send_many(c | {"command_id": "x" + c["command_id"]} for c in shopping(100))
        pipeline.settle()
    with duckdb.connect(str(own.published), read_only=True) as db:
        assert sorted_rows(db, "FROM counts") == sorted_rows(db, COUNTS)


def test_what_stands_in_the_way_is_one_line(settings: Settings, up: Callable[..., Up]) -> None:
    pipeline = up(settings.model_copy(update={"batch_max": 50}))
    with pipeline.ready() as producer:
        producer.send_many(shopping(500))
    pipeline.settle()
    pipeline.stop()
    unknown = foldlog(settings, "rebuild", "nothing")
    assert "these have: carts, orders" in unknown.stderr
    with open(settings.data / "rebuild.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "another rebuild runs" in foldlog(settings, "rebuild", "--all").stderr
    first = min((settings.events / "partition=1").glob("*.parquet"))
    first.unlink()
    missing = foldlog(settings, "rebuild", "--all")
    assert missing.returncode == 1
    assert "`foldlog verify` says which file is missing" in missing.stderr
    assert missing.stderr.count("\n") == 1
