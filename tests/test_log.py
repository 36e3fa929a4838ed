"""The log: whole commits or none, one writer, damage that is named."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow.dataset import dataset

from ingest import crash
from ingest.errors import LogDamaged, LogMismatch, Superseded
from ingest.shop import shop
from pipeline.decide.outcomes import A_DAY
from pipeline.lock import alone
from pipeline.log.compaction import merge
from pipeline.log.inputs import Inputs
from pipeline.log.log import COMPACTING, Log
from pipeline.log.schemas import Schemas, remembered
from pipeline.log.tail import Tail
from pipeline.replay.restore import restore
from tests.running import InProcess, entry

RACE = """
import sys, time
from pathlib import Path
from ingest.errors import Superseded
from pipeline.log.log import Log
log = Log.open(Path(sys.argv[1]), domain="shop")
rows = log.read_file(log.files(0)[0])
while time.time() < float(sys.argv[2]):
    pass
won = 0
for position in range(10, 60):
    try:
        log.append(0, position, rows)
        won += 1
    except Superseded:
        pass
print(won)
"""


def add(number: int) -> dict[str, object]:
    return {
        "type": "AddProduct",
        "command_id": str(number),
        "cart_id": "7",
        "product_id": "milk",
        "quantity": 1,
        "unit_price_cents": 100,
    }


def filled(folder: Path, commits: list[int]) -> Log:
    """A log of one partition with commits of the given sizes."""
    pipeline = InProcess(folder, partitions=1)
    number = 0
    for size in commits:
        pipeline.decide(0, [entry(number + i, add(number + i)) for i in range(size)])
        number += size
    pipeline.writer.close()
    return pipeline.log


def test_a_commit_is_a_file_named_by_its_first_position(tmp_path: Path) -> None:
    log = filled(tmp_path, [3, 2])
    assert [f.path.name for f in log.files(0)] == [f"{0:020}.parquet", f"{3:020}.parquet"]
    assert log.tail(0) == Tail(5, Inputs("1700000000000-4"))
    assert list(log.folder.rglob("*.tmp")) == []


@pytest.mark.parametrize("first", range(7))
def test_reading_begins_at_any_position(tmp_path: Path, first: int) -> None:
    log = filled(tmp_path, [3, 1, 2])
    positions = [p for t in log.read(0, first) for p in t["position"].to_pylist()]
    assert positions == list(range(first, 6))


def test_a_position_that_is_taken_is_lost_to_the_second_writer(tmp_path: Path) -> None:
    log = filled(tmp_path, [1])
    rows = log.read_file(log.files(0)[0])
    before = log.files(0)[0].path.read_bytes()
    with pytest.raises(Superseded, match="position 0 of partition 0"):
        log.append(0, 0, rows)
    assert log.files(0)[0].path.read_bytes() == before
    assert list(log.folder.rglob("*.tmp")) == []


def test_of_two_processes_that_race_for_fifty_names_one_gets_each(tmp_path: Path) -> None:
    log = filled(tmp_path, [1])
    start = str(time.time() + 1.5)
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACE, str(log.folder), start], stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    won = [int(racer.communicate(timeout=60)[0]) for racer in racers]
    assert sum(won) == 50


def test_another_partition_count_or_domain_is_refused(tmp_path: Path) -> None:
    filled(tmp_path, [])
    with pytest.raises(LogMismatch, match="has 1 partitions, not 4; run with --partitions 1"):
        Log.create(tmp_path / "events", partitions=4, domain="shop")
    assert Log.create(tmp_path / "events", partitions=None, domain="shop").partitions == 1
    with pytest.raises(LogMismatch, match="belongs to the domain 'shop', not 'bank'"):
        Log.open(tmp_path / "events", domain="bank")
    with pytest.raises(LogMismatch, match="there is no log"):
        Log.open(tmp_path / "nowhere", domain="shop")


def test_a_flipped_byte_is_found_and_its_file_named(tmp_path: Path) -> None:
    log = filled(tmp_path, [50])
    path = log.files(0)[0].path
    column = (
        pq.ParquetFile(path).metadata.row_group(0).column(shop.schema.names.index("command_id"))
    )
    damaged = bytearray(path.read_bytes())
    damaged[column.data_page_offset + column.total_compressed_size - 3] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(LogDamaged, match=path.name):
        list(log.read(0))


def test_a_missing_file_in_the_middle_is_found_and_its_positions_named(tmp_path: Path) -> None:
    log = filled(tmp_path, [2, 3, 2])
    log.files(0)[1].path.unlink()
    with pytest.raises(LogDamaged, match="positions 2 to 4 are missing"):
        list(log.read(0))


@pytest.mark.parametrize("commits", [[4000], [100] * 40])
def test_an_event_takes_few_bytes_besides_its_command_id_where_there_are_many(
    tmp_path: Path, commits: list[int]
) -> None:
    log = filled(tmp_path, commits)
    merge(log)
    assert sum(file.path.stat().st_size for file in log.files(0)) / 4000 < 10


def test_a_log_has_an_identity_of_its_own_that_stays(tmp_path: Path) -> None:
    log = filled(tmp_path / "a", [1])
    assert Log.open(log.folder, domain="shop").identity == log.identity
    assert Log.create(log.folder, partitions=None, domain="shop").identity == log.identity
    assert filled(tmp_path / "b", [1]).identity != log.identity


def rows_at(log: Log, first: int, count: int) -> pa.Table:
    """Rows that another writer might commit at a position."""
    row = log.read_file(log.files(0)[0]).slice(0, 1)
    rows = pa.concat_tables([row] * count)
    positions = pa.array(range(first, first + count), pa.int64())
    return rows.set_column(rows.schema.get_field_index("position"), "position", positions)


def at(monkeypatch: pytest.MonkeyPatch, name: str, happens: Callable[[], object]) -> None:
    """Let something happen when a writer comes by this point the first time."""
    waiting = [happens]

    def point(passed: str) -> None:
        if passed == name and waiting:
            waiting.pop()()

    monkeypatch.setattr(crash, "point", point)


@pytest.mark.parametrize("point", ["commit.to_write", "commit.written", "commit.to_link"])
def test_of_two_writers_with_one_process_id_the_slower_one_loses_and_spoils_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    log = filled(tmp_path, [1])
    mine, other = rows_at(log, 1, 4), rows_at(log, 1, 900)
    at(monkeypatch, point, lambda: log.append(0, 1, other))
    with pytest.raises(Superseded, match="position 1 of partition 0"):
        log.append(0, 1, mine)
    assert log.read_file(log.files(0)[1]).equals(other)
    assert unfinished(log) == []


@pytest.mark.parametrize("point", ["commit.to_write", "commit.to_link"])
def test_a_writer_whose_unfinished_file_a_new_one_has_cleared_stops_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    log = filled(tmp_path, [1])
    at(monkeypatch, point, lambda: log.settle(0))
    with pytest.raises(Superseded, match="another process has started"):
        log.append(0, 1, rows_at(log, 1, 4))
    assert log.next_position(0) == 1
    at(monkeypatch, point, lambda: log.clear_unfinished(0, COMPACTING))
    log.append(0, 1, rows_at(log, 1, 4))
    at(monkeypatch, point, lambda: log.clear_unfinished(0, COMPACTING))
    with pytest.raises(Superseded, match="another process has started"):
        log.append_compacted(0, log.files(0))
    assert unfinished(log) == []


@pytest.mark.parametrize("point", ["commit.to_write", "commit.to_link"])
def test_of_two_that_start_at_once_one_makes_the_log_and_both_work_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    folder = tmp_path / "events"
    others: list[Log] = []

    def start() -> Log:
        return Log.create(folder, partitions=1, domain="shop")

    at(monkeypatch, point, lambda: others.append(start()))
    assert start().identity == others[0].identity
    assert [path.name for path in folder.glob("*.tmp")] == []
    before = Schemas(shop, others[0])
    at(monkeypatch, point, lambda: others.append(start()))  # clears what it declares
    before.note(pa.table({"event_type": ["ProductAdded"]}))
    assert "ProductAdded" in {found.event_type for found in remembered(others[1])}


def unfinished(log: Log) -> list[str]:
    names = (p.name for p in (log.folder / "partition=0").iterdir())
    return [name for name in names if name.endswith((".tmp", COMPACTING))]


def fsynced(monkeypatch: pytest.MonkeyPatch, then: str) -> list[str]:
    """Names of the files and folders that are brought to the disk, and calls of `os.<then>`."""
    seen: list[str] = []
    fsync, other = os.fsync, getattr(os, then)

    def noted(descriptor: int) -> None:
        seen.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        fsync(descriptor)

    def called(path: Any) -> object:
        seen.append(f"{then} {Path(path).name}")
        return other(path)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(os, then, called)
    return seen


@pytest.mark.skipif(sys.platform != "linux", reason="descriptors are named in /proc")
def test_what_a_killed_writer_has_linked_is_on_the_disk_before_anything_rests_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = filled(tmp_path, [1, 1])
    seen = fsynced(monkeypatch, "listdir")
    restore(shop, log, 0, A_DAY)
    assert seen.index("partition=0") < seen.index("listdir partition=0")
    monkeypatch.undo()
    log.append_compacted(0, log.files(0))  # by a compaction that is killed after its link
    seen = fsynced(monkeypatch, "unlink")
    small = [f for f in log.all_files(0) if f.last is None]
    log.append_compacted(0, small)
    assert "partition=0" in seen
    log.remove(0, small)
    monkeypatch.undo()
    fresh = tmp_path / "fresh" / "events"
    seen = fsynced(monkeypatch, "listdir")
    Log.create(fresh, partitions=1, domain="shop")
    assert {"events", "fresh", tmp_path.name} <= {*seen}


@pytest.mark.parametrize("backwards", [False, True])
def test_what_a_stale_writer_left_beside_a_compacted_file_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backwards: bool
) -> None:
    log = filled(tmp_path, [1, 1, 3])
    before = pa.concat_tables(log.read(0))
    small = log.files(0)[:2]
    stale = rows_at(log, 0, 9)
    log.append_compacted(0, small)
    log.remove(0, small)
    with monkeypatch.context() as killed:  # between its link and its look
        killed.setattr(Log, "_removed", lambda *_: -1)
        log.append(0, 0, stale)
    names = os.listdir(log.folder / "partition=0")
    assert {f"{0:020}.parquet", f"{0:020}-{1:020}.parquet"} <= {*names}
    monkeypatch.setattr(os, "listdir", lambda _: sorted(names, reverse=backwards))
    assert pa.concat_tables(log.read(0)).equals(before)
    assert [f.first for f in log.files(0)] == [0, 2]
    assert log.next_position(0) == 5


class Killed(BaseException):
    """In place of the end of the process."""


@pytest.mark.parametrize("point", ["append.to_take_back", "append.taken_back"])
def test_a_stale_writer_that_dies_while_it_takes_its_commit_back_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    log = filled(tmp_path, [1, 1, 3])
    before = pa.concat_tables(log.read(0))
    small = log.files(0)[:2]
    log.append_compacted(0, small)
    log.remove(0, small)

    def die() -> None:
        raise Killed

    at(monkeypatch, point, die)
    with pytest.raises(Killed):
        log.append(0, 0, rows_at(log, 0, 9))
    assert pa.concat_tables(log.read(0)).equals(before)
    assert log.next_position(0) == 5


def test_a_writer_goes_on_after_a_copy_that_knows_of_later_removals_than_it_has_files(
    tmp_path: Path,
) -> None:
    log = filled(tmp_path, [1, 1, 1, 3])
    log.append_compacted(0, log.files(0)[:2])
    log.remove(0, [f for f in log.all_files(0) if f.last is None and f.first < 2])
    for late in [f for f in log.files(0) if f.first >= 2]:  # they came after the copy was begun
        late.path.unlink()
    (log.folder / "partition=0" / "_removed").write_text("3")
    log.append(0, 2, rows_at(log, 2, 1))
    assert log.next_position(0) == 3
    with pytest.raises(Superseded):
        log.append(0, 1, rows_at(log, 1, 1))


def test_tools_that_read_folders_of_parquet_files_pass_over_what_is_no_data(tmp_path: Path) -> None:
    log = filled(tmp_path, [1, 1, 3])
    small = log.files(0)[:2]
    log.append_compacted(0, small)
    with log.reading(), alone(log.folder / "_compaction.lock", "…"):
        log.remove(0, small)
    (log.folder / "partition=0" / f"_{5:020}.parquet.ab12.tmp").write_bytes(b"half of a comm")
    assert dataset(log.folder).count_rows() == 5
    assert len(pandas.read_parquet(log.folder, partitioning=None)) == 5
