"""Compaction: few large files instead of many small ones, and no reader ever notices."""

from __future__ import annotations

import os
import random
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest import crash
from ingest.errors import DataInUse, LogDamaged, Superseded
from ingest.shop import shop
from pipeline.health.status import status
from pipeline.lock import alone
from pipeline.log.compaction import FAN_IN, ROWS_MAX, choose
from pipeline.log.log import Log
from pipeline.read.compaction import compact
from pipeline.settings import Settings
from tests.running import InProcess, Up, entry, foldlog, read, sorted_rows, wait_for
from tests.shopping import check, shopping

DAY_S = 86_400


def committed(folder: Path, commands: int = 250, size: int = 3) -> InProcess:
    """A pipeline with many small commits."""
    pipeline = InProcess(folder, partitions=1)
    entries = [entry(i, c) for i, c in enumerate(shopping(commands))]
    for at in range(0, len(entries), size):
        pipeline.decide(0, entries[at : at + size])
    pipeline.flush()
    return pipeline


def at_once(folder: Path, **more: Any) -> Settings:
    """Covered files go when they are found."""
    given = {"data": folder, "compact_grace_s": 0, "compact_kept_s": 0, **more}
    return Settings(**given)


def names(log: Log) -> list[str]:
    return [file.path.name for file in log.files(0)]


def test_a_compacted_log_has_the_same_rows_in_few_files(tmp_path: Path) -> None:
    pipeline = committed(tmp_path)
    settings = at_once(tmp_path)
    before, files = pipeline.rows(), len(names(pipeline.log))
    done = compact(at_once(tmp_path, compact_grace_s=3600), pipeline.log)
    assert pipeline.rows().equals(before)
    assert done.merged > files - FAN_IN > done.into
    assert len(names(pipeline.log)) < FAN_IN
    assert len(pipeline.log.all_files(0)) == files + done.into  # the small ones are there still

    assert compact(settings, pipeline.log).removed == done.merged
    assert [f.path for f in pipeline.log.all_files(0)] == [f.path for f in pipeline.log.files(0)]
    assert pipeline.rows().equals(before)
    pipeline.restart()
    (decided,) = [pipeline.decide(0, [entry(9_999, shopping(1, seed=5)[0] | {"command_id": "n"})])]
    assert decided.first == len(before)
    pipeline.writer.close()


def test_the_published_file_never_names_a_file_that_is_gone(tmp_path: Path) -> None:
    pipeline = committed(tmp_path)
    published = pipeline.publish()
    shown = read(published, "events", "outcomes")
    settings = at_once(tmp_path)
    done = compact(settings, pipeline.log)
    assert done.removed > 60
    assert done.kept.files == 0 < len(kept(tmp_path))  # it names the small ones
    assert read(published, "events", "outcomes") == shown
    pipeline.publish()
    compact(settings, pipeline.log)
    assert kept(tmp_path) == {*names(pipeline.log)}
    assert read(published, "events", "outcomes") == shown
    pipeline.writer.close()


RELATIONS = ("events", "rejections", "outcomes")


def answers(db: duckdb.DuckDBPyConnection) -> list[list[tuple[Any, ...]]]:
    return [sorted_rows(db, f"FROM {name}") for name in RELATIONS]


def covered_long_ago(log: Log) -> None:
    """Let an hour pass since the last compaction."""
    for file in log.all_files(0):
        if file.last is not None:
            os.utime(file.path, (time.time() - 3600, time.time() - 3600))


def test_a_file_that_an_analyst_has_open_answers_while_the_log_is_compacted(
    tmp_path: Path,
) -> None:
    pipeline = committed(tmp_path, 150)
    settings = Settings(data=tmp_path)
    with duckdb.connect(str(pipeline.publish()), read_only=True) as analyst:
        shown = answers(analyst)
        assert all(shown)
        for seed in range(2):
            more = [c | {"command_id": f"{seed}{i}"} for i, c in enumerate(shopping(20, seed=seed))]
            for number, command in enumerate(more):
                pipeline.decide(0, [entry(1_000 * (seed + 1) + number, command)])
            pipeline.flush()
            pipeline.publish()
            compact(settings, pipeline.log)
            covered_long_ago(pipeline.log)
            assert compact(settings, pipeline.log).removed > 15
            assert answers(analyst) == shown
        pipeline.publish()
        compact(settings, pipeline.log)
        state = status(settings.model_copy(update={"redis_url": "redis://127.0.0.1:1"}))
        assert (state.kept_files, state.kept_bytes) == (len(waiting(pipeline)), disk(pipeline))
        compact(settings.model_copy(update={"compact_kept_s": 0, "compact_grace_s": 0}),
                pipeline.log)  # fmt: skip
        with pytest.raises(duckdb.IOException):
            answers(analyst)
    pipeline.writer.close()


def kept(folder: Path) -> set[str]:
    return {path.name for path in (folder / "kept").rglob("*.parquet")}


def waiting(pipeline: InProcess) -> list[os.stat_result]:
    """Those that only readers of older published files need, in the order in which they came."""
    needed = {file.path.name for file in pipeline.log.all_files(0)}
    found = (pipeline.folder / "kept").rglob("*.parquet")
    return sorted((p.stat() for p in found if p.name not in needed), key=lambda s: s.st_ctime_ns)


def disk(pipeline: InProcess) -> int:
    return sum(file.st_blocks * 512 for file in waiting(pipeline))


def test_what_is_kept_for_readers_takes_no_more_room_than_it_may_and_the_oldest_goes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = committed(tmp_path, 150)
    pipeline.publish()
    day = {"compact_kept_s": DAY_S}
    compact(at_once(tmp_path, **day), pipeline.log)
    pipeline.publish()
    done = compact(at_once(tmp_path, **day), pipeline.log)
    before = waiting(pipeline)
    assert done.kept.files == len(before) > 40
    most = disk(pipeline) // 2
    compact(at_once(tmp_path, **day, compact_kept_bytes=most), pipeline.log)
    left = waiting(pipeline)
    assert most // 2 < disk(pipeline) <= most
    gone = [f for f in before if f.st_ino not in {f.st_ino for f in left}]
    assert max(f.st_ctime_ns for f in gone) <= min(f.st_ctime_ns for f in left)
    full = os.statvfs(tmp_path)
    monkeypatch.setattr(
        os, "statvfs", lambda _: SimpleNamespace(f_bavail=0, f_frsize=full.f_frsize)
    )
    compact(at_once(tmp_path, **day), pipeline.log)
    assert waiting(pipeline) == []
    assert len(pipeline.rows()) == sum(
        len(rows) for rows in read(tmp_path / "read_models.duckdb", "events", "rejections").values()
    )
    pipeline.writer.close()


def test_a_log_that_an_older_copy_has_replaced_shows_its_own_rows(tmp_path: Path) -> None:
    pipeline = committed(tmp_path, 30)
    shutil.copytree(tmp_path / "events", tmp_path / "backup")
    for number, way in enumerate(["first", "second"]):
        more = [c | {"command_id": f"{way}{c['command_id']}"} for c in shopping(30, seed=number)]
        pipeline.run(0, *more)
        shown = read(pipeline.publish(), "events")["events"]
        assert any(way in str(row) for row in shown)
        assert len(shown) == len({row[:2] for row in shown})
        pipeline.writer.close()
        shutil.rmtree(tmp_path / "events")
        shutil.copytree(tmp_path / "backup", tmp_path / "events")
        pipeline = InProcess(tmp_path, partitions=1)
    pipeline.writer.close()


def test_what_somebody_reads_stays(tmp_path: Path) -> None:
    pipeline = committed(tmp_path)
    settings = at_once(tmp_path)
    with pipeline.log.reading():
        assert compact(settings, pipeline.log).removed == 0
    assert compact(settings, pipeline.log).removed > 0
    lock = pipeline.log.folder / "_compaction.lock"
    with alone(lock, "…"), pytest.raises(DataInUse, match="another compaction"):
        compact(settings, pipeline.log)
    pipeline.writer.close()


def test_a_writer_that_slept_through_a_take_over_and_a_compaction_stops(tmp_path: Path) -> None:
    pipeline = committed(tmp_path)
    zombie = next(iter(pipeline.log.read(0, 6)))
    before = pipeline.rows()
    compact(at_once(tmp_path), pipeline.log)
    assert not (pipeline.log.folder / "partition=0" / f"{6:020}.parquet").exists()
    with pytest.raises(Superseded, match="position 6 of partition 0"):
        pipeline.log.append(0, 6, zombie)
    assert pipeline.rows().equals(before)
    assert not (pipeline.log.folder / "partition=0" / f"{6:020}.parquet").exists()
    pipeline.writer.close()


def test_damage_is_not_compacted(tmp_path: Path) -> None:
    pipeline = committed(tmp_path)
    damaged = pipeline.log.files(0)[5].path
    damaged.write_bytes(damaged.read_bytes()[:-10])
    with pytest.raises(LogDamaged, match=damaged.name):
        compact(at_once(tmp_path), pipeline.log)
    damaged.unlink()
    with pytest.raises(LogDamaged, match="missing"):
        compact(at_once(tmp_path), pipeline.log)
    assert not [f for f in pipeline.log.all_files(0) if f.last is not None]
    pipeline.writer.close()


@pytest.mark.parametrize(
    "point",
    ["commit.to_write", "commit.written", "commit.to_link", "commit.linked", "commit.done",
     "replace.to_rename", "replace.renamed", "replace.to_fsync_folder", "replace.done",
     "compact.to_remove", "compact.removed", "compact.to_trim", "compact.trimmed",
     "compact.to_note", "compact.noted"],
)  # fmt: skip
def test_a_compaction_that_dies_loses_nothing_and_doubles_nothing(
    tmp_path: Path, point: str
) -> None:
    pipeline = committed(tmp_path)
    before = pipeline.rows()
    settings = at_once(tmp_path)
    pipeline.publish()
    if "trim" in point or "note" in point:
        compact(settings, pipeline.log)
        pipeline.publish()
    time_of_many = 3 if point.startswith("compact") and "note" not in point else 1
    died = foldlog(settings, "compact", environment={crash.VARIABLE: f"{point}:{time_of_many}"})
    assert died.returncode == crash.EXIT_CODE
    assert pipeline.rows().equals(before)
    done = foldlog(settings, "compact")
    assert done.returncode == 0, done.stderr
    assert pipeline.rows().equals(before)
    assert len(names(pipeline.log)) < FAN_IN
    left = {p.name for p in (tmp_path / "events" / "partition=0").iterdir()}
    assert left == {*names(pipeline.log), "_removed"}
    pipeline.writer.close()


def test_a_pipeline_compacts_as_it_runs_and_readers_see_every_row_once(
    settings: Settings, up: Callable[..., Up]
) -> None:
    settings = settings.model_copy(
        update={
            "batch_max": 5, "compact_interval_s": 0.1, "compact_grace_s": 0,
            "compact_kept_s": 0,
            "publish_interval_ms": 50, "flush_rows_max": 50,
        }
    )  # fmt: skip
    commands = shopping(1_000)
    wrong: list[object] = []
    finished = threading.Event()

    def look() -> None:
        while not finished.is_set():
            with duckdb.connect(str(settings.published), read_only=True) as db:
                held = "SELECT sum(next_position) FROM live.positions"
                try:
                    seen = db.execute(
                        f"SELECT count(*), count(DISTINCT (partition, position)), ({held})"
                        " FROM live.log"
                    ).fetchone()
                except duckdb.IOException:
                    continue  # files go at once here, and this look was a long one
                if seen and not seen[0] == seen[1] == (seen[2] or 0):
                    wrong.append(seen)

    pipeline = up(settings)
    with pipeline.ready() as producer:
        wait_for(settings.published.exists, "the first publish")
        reader = threading.Thread(target=look)
        reader.start()
        for at in range(0, len(commands), 200):
            producer.send_many(commands[at : at + 200])
            time.sleep(0.2)
        pipeline.settle()
    log = Log.open(settings.events, domain="shop")
    wait_for(lambda: sum(len(log.all_files(p)) for p in range(4)) < 200, "few files")
    finished.set()
    reader.join()
    assert wrong == []
    check(settings, commands)
    assert pipeline.stop() == 0, pipeline.errors()
    assert foldlog(settings, "verify").returncode == 0
    pipeline = up(settings)
    more = shopping(200, seed=11)
    with pipeline.ready() as producer:
        producer.send_many(c | {"command_id": "x" + c["command_id"]} for c in more)
    pipeline.settle()
    check(settings, commands + [c | {"command_id": "x" + c["command_id"]} for c in more])


def test_after_a_day_of_trickle_there_are_a_few_hundred_files() -> None:
    """Ten commands a second in four partitions, each a commit, by a clock of the test's own."""
    interval_s, kept_s, partitions = 10, 30, 4
    rnd = random.Random(1)
    rows: list[list[int]] = [[] for _ in range(partitions)]
    waiting: list[tuple[int, int]] = []  # (when, files) that are covered and not removed yet
    written = most = 0
    for now in range(0, DAY_S, interval_s):
        for _ in range(10 * interval_s):
            rows[rnd.randrange(partitions)].append(1)
        waiting = [(when, files) for when, files in waiting if when > now - kept_s]
        for sizes in rows:
            while chosen := choose(sizes[:-1]):  # the newest file is left alone
                merged = sum(sizes[chosen.start : chosen.stop])
                sizes[chosen.start : chosen.stop] = [merged]
                waiting.append((now, len(chosen)))
                written += merged
        most = max(most, sum(map(len, rows)) + sum(files for _, files in waiting))
    assert sum(map(sum, rows)) == 10 * DAY_S
    assert sum(map(len, rows)) < 300
    assert most < 1_000  # with those that wait for their removal
    assert written < 6 * 10 * DAY_S  # each row is written a few times, not once an interval


@given(st.lists(st.sampled_from([1, 7, 100, 5_000, 70_000, 400_000, 999_999]), max_size=80))
def test_what_is_chosen_is_worth_it_and_comes_to_an_end(rows: list[int]) -> None:
    total, rounds = sum(rows), 0
    while chosen := choose(rows):
        assert len(chosen) > 1
        merged = sum(rows[chosen.start : chosen.stop])
        assert merged <= max(ROWS_MAX, max(rows[chosen.start : chosen.stop]))
        rows[chosen.start : chosen.stop] = [merged]
        rounds += 1
        assert rounds < 200
    assert sum(rows) == total


def test_a_column_that_older_files_lack_is_null(tmp_path: Path) -> None:
    pipeline = committed(tmp_path, 60)
    rows = pipeline.rows()
    pipeline.writer.close()
    folder = tmp_path / "old" / "events"
    log = Log.create(folder, partitions=1, domain="shop")
    for at in range(0, len(rows), 2):
        part = rows.slice(at, 2)
        log.append(0, at, part.drop_columns(["value_cents"]) if at < len(rows) / 2 else part)
    compact(at_once(tmp_path / "old"), log)
    (first, *_) = [f for f in log.files(0) if f.last is not None]
    assert set(log.read_file(first).schema.names) == set(shop.schema.names)
