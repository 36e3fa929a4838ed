"""The log: whole commits or none, one writer, damage that is named."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from ingest.cart import cart
from ingest.errors import LogDamaged, LogMismatch, Superseded
from pipeline.log import Log, Tail
from tests.running import InProcess, entry

RACE = """
import sys, time
from pathlib import Path
from ingest.errors import Superseded
from pipeline.log import Log
log = Log.open(Path(sys.argv[1]), domain="cart")
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
    assert log.tail(0) == Tail(5, "1700000000000-4")
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
        Log.create(tmp_path / "events", partitions=4, domain="cart")
    assert Log.create(tmp_path / "events", partitions=None, domain="cart").partitions == 1
    with pytest.raises(LogMismatch, match="belongs to the domain 'cart', not 'bank'"):
        Log.open(tmp_path / "events", domain="bank")
    with pytest.raises(LogMismatch, match="there is no log"):
        Log.open(tmp_path / "nowhere", domain="cart")


def test_a_flipped_byte_is_found_and_its_file_named(tmp_path: Path) -> None:
    log = filled(tmp_path, [50])
    path = log.files(0)[0].path
    column = (
        pq.ParquetFile(path).metadata.row_group(0).column(cart.schema.names.index("command_id"))
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


def test_an_event_of_the_demo_takes_few_bytes_besides_its_command_id(tmp_path: Path) -> None:
    log = filled(tmp_path, [4000])
    assert log.files(0)[0].path.stat().st_size / 4000 < 10
