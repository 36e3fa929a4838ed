"""A snapshot is a cache: a restart that reads one is like a restart that does not, only shorter."""

from __future__ import annotations

import os
import pickle
import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeAlias
from zlib import crc32

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from ingest.domain import Domain
from ingest.shop import cart, shop
from pipeline.decide.aggregates import Aggregates, Key, Versioned
from pipeline.decide.partition import Partition
from pipeline.deployment import Deployment
from pipeline.log.log import Log
from pipeline.read.refold import refolded
from pipeline.replay.restore import restore
from pipeline.replay.snapshot_file import Snapshot
from pipeline.replay.snapshots import Snapshots, code_of, saved_states
from pipeline.settings import Settings
from tests.domains.bank import bank
from tests.domains.depot import depot
from tests.domains.transfers import Close, Deposit, Transfer, transfers
from tests.more import examples
from tests.reacting import Workers
from tests.running import DEDUPE_WINDOW, LATE_2023_MS, InProcess, Up, entry, foldlog
from tests.shopping import check, shopping
from tests.stocktaking import trading

Remembered: TypeAlias = tuple[dict[Key, Versioned | None], dict[str, Any], int]


class WithSnapshots(InProcess):
    """One partition of a pipeline that takes a snapshot after every `rows` rows."""

    def __init__(
        self, folder: Path, rows: int = 20, in_memory: int = 5, domain: Domain = shop
    ) -> None:
        self._taken = {"rows": rows, "in_memory": in_memory}
        super().__init__(folder, domain, partitions=1)

    def restart(self) -> None:
        self.snapshots = Snapshots(self.folder / "snapshots", self.domain, self.log, **self._taken)
        snapshot = self.snapshots.open(0)
        self.resumed_at = snapshot.position
        reached = self.snapshots.reached
        self.partitions = [restore(self.domain, self.log, 0, DEDUPE_WINDOW, snapshot, reached)]

    def handle(self, commands: list[dict[str, Any]], first: int = 0) -> None:
        decided = self.decide(0, [entry(first + i, c) for i, c in enumerate(commands)])
        if len(decided.rows):
            self.snapshots.committed(self.partitions[0], decided.first + len(decided.rows))

    def remembered(self) -> Remembered:
        """Everything that a writer knows, cold aggregates too."""
        return everything_of(self, *self.partitions)


def first_outcomes(pipeline: InProcess, partition: Partition) -> dict[str, Any]:
    ids = sorted({i for i in pipeline.rows()["command_id"].to_pylist() if i})
    end = partition.next_position
    partition.outcomes.restore(LATE_2023_MS * 1000)
    return {i: partition.outcomes.first(i, end, LATE_2023_MS * 1000, {}) for i in ids}


def everything_of(pipeline: InProcess, partition: Partition) -> Remembered:
    rows = pipeline.rows()
    keys = {*zip(rows["aggregate"].to_pylist(), rows["aggregate_id"].to_pylist(), strict=True)}
    states = {key: partition.aggregates.get(key) for key in sorted(keys) if all(key)}
    return states, first_outcomes(pipeline, partition), partition.next_position


def folded(pipeline: InProcess) -> Remembered:
    """The same from the log alone."""
    partition = restore(pipeline.domain, pipeline.log, 0, DEDUPE_WINDOW)
    return everything_of(pipeline, partition)


@pytest.mark.parametrize("domain", [shop, depot], ids=lambda domain: domain.name)
@examples(6, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 1000),
    cuts=st.lists(
        st.tuples(st.integers(1, 40), st.sampled_from(["go on", "stop", "kill"])), max_size=12
    ),
)
def test_any_restarts_remember_what_the_log_says(
    domain: Domain, seed: int, cuts: list[tuple[int, str]]
) -> None:
    with tempfile.TemporaryDirectory() as name:
        pipeline = WithSnapshots(Path(name), domain=domain)
        commands = shopping(300, seed) if domain is shop else trading(300, seed, list("abcdefgh"))
        at = 0
        for count, then in cuts:
            pipeline.handle(commands[at : at + count], at)
            at += count
            if then == "stop":
                pipeline.snapshots.close()
                pipeline.restart()
                assert pipeline.resumed_at == pipeline.partitions[0].next_position
            if then == "kill":
                pipeline.snapshots._settle(wait=True)
                pipeline.restart()
        pipeline.handle(commands[at:], at)
        assert pipeline.remembered() == folded(pipeline)


def taken(folder: Path) -> WithSnapshots:
    """A pipeline that has stopped with a snapshot, and then committed a little more."""
    pipeline = WithSnapshots(folder)
    commands = shopping(300)
    for at in range(0, 200, 20):
        pipeline.handle(commands[at : at + 20], at)
    pipeline.snapshots.close()
    pipeline.restart()
    assert pipeline.resumed_at > 100
    pipeline.handle(commands[200:210], 200)
    return pipeline


def test_aggregates_that_are_not_touched_leave_memory_and_come_back(tmp_path: Path) -> None:
    pipeline = taken(tmp_path)
    known = pipeline.partitions[0].aggregates
    assert len(known) < 15 < len(folded(pipeline)[0])
    assert pipeline.remembered() == folded(pipeline)


@pytest.mark.parametrize("damage", ["cut", "garbage", "state", "no table"])
def test_a_damaged_snapshot_is_thrown_away_and_the_log_is_folded(
    tmp_path: Path, damage: str
) -> None:
    pipeline = taken(tmp_path)
    pipeline.snapshots.close()
    path = tmp_path / "snapshots" / "0.sqlite"
    if damage in ("cut", "garbage"):
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2] if damage == "cut" else b"x" * len(content))
    else:
        with sqlite3.connect(path) as db:
            db.execute({
                "state": "UPDATE aggregates SET state = replace(state, x'01', x'02')",
                "no table": "DROP TABLE aggregates",
            }[damage])  # fmt: skip
    try:
        pipeline.restart()
        remembered = pipeline.remembered()
    except sqlite3.DatabaseError:  # found when an aggregate was touched: the process ends
        pipeline.restart()
        assert pipeline.resumed_at == 0
        remembered = pipeline.remembered()
    assert remembered == folded(pipeline)


def test_a_snapshot_of_another_log_or_of_other_code_is_of_no_use(tmp_path: Path) -> None:
    pipeline = taken(tmp_path)
    pipeline.snapshots.close()
    path = tmp_path / "snapshots" / "0.sqlite"
    assert Snapshot(path, pipeline.snapshots._code).position > 200
    other = WithSnapshots(tmp_path / "other")
    for at in range(0, 300, 20):
        other.handle(shopping(300, seed=1)[at : at + 20], 1_000 + at)
    other.snapshots.close()
    (tmp_path / "other" / "snapshots" / "0.sqlite").write_bytes(path.read_bytes())
    other.restart()
    assert other.remembered() == folded(other)

    shorter = max(pipeline.log.files(0), key=lambda file: file.first).path
    shorter.unlink()
    pipeline.restart()
    assert pipeline.remembered() == folded(pipeline)
    pipeline.snapshots.close()
    assert Snapshot(path, "of other code").position == 0


def lived(folder: Path, *, closed_first: bool) -> Workers:
    """Account g is closed before or after it gets money; then something else happens."""
    workers = Workers(folder, transfers, [[0], [1], [2]])
    for account_id in "ab":
        workers.send(Deposit(account_id=account_id, cents=10))
    workers.send(Transfer(account_id="a", to_account="g", cents=1))
    workers.send(Transfer(account_id="b", to_account="i", cents=1))
    workers.send(Close(account_id="g"))
    for number in [1, 0, 1, 2, 1] if closed_first else [0, 1, 2, 1]:
        assert workers.step(number, number)
    return workers


def test_a_snapshot_of_another_history_with_the_same_last_row_is_of_no_use(tmp_path: Path) -> None:
    Log.create(tmp_path / "one" / "events", partitions=3, domain="transfers")
    shutil.copytree(tmp_path / "one", tmp_path / "other")
    one = lived(tmp_path / "one", closed_first=True)
    other = lived(tmp_path / "other", closed_first=False)
    assert (len(one.rows(1)), one.rows(1)[-1]) == (len(other.rows(1)), other.rows(1)[-1])
    one.workers[1]._snapshots.close()
    shutil.rmtree(one.log.partition_folder(1))
    shutil.copytree(other.log.partition_folder(1), one.log.partition_folder(1))
    one.kill(1)
    (owned,) = one.workers[1]._owned.values()
    from_the_log = restore(transfers, other.log, 1, DEDUPE_WINDOW).aggregates
    assert owned.aggregates.get(("account", "g")) == from_the_log.get(("account", "g"))


def test_a_snapshot_is_of_use_where_the_log_is_compacted_across_runs(tmp_path: Path) -> None:
    pipeline = taken(tmp_path)
    log = pipeline.log
    for few in (log.files(0)[2:5], log.files(0)):
        log.append_compacted(0, few)
    log.remove(0, [file for file in log.all_files(0) if file not in log.files(0)])
    assert len(log.all_files(0)) == 1
    pipeline.restart()
    assert pipeline.resumed_at > 100
    assert pipeline.snapshots._open[0].position == pipeline.resumed_at, "it was not thrown away"
    assert pipeline.remembered() == folded(pipeline)


class RunsWhenLoaded:
    """What a hostile state would do."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self._path,)


@pytest.mark.parametrize("hole", ["file", "folder", "wal", "owner"])
def test_a_snapshot_that_another_user_can_have_written_is_not_loaded(
    tmp_path: Path, hole: str, caplog: pytest.LogCaptureFixture
) -> None:
    if hole == "owner" and os.geteuid():
        pytest.skip("only root can give a file away")
    pipeline = taken(tmp_path)
    pipeline.snapshots.close()
    folder = tmp_path / "snapshots"
    path = folder / "0.sqlite"
    hostile = pickle.dumps(RunsWhenLoaded(tmp_path / "ran"))
    with sqlite3.connect(path) as db:
        for id_, version in db.execute("SELECT id, version FROM aggregates").fetchall():
            db.execute("UPDATE aggregates SET state = ?, checksum = ? WHERE id = ?",
                       [hostile, crc32(hostile, version), id_])  # fmt: skip
    db.close()
    if hole == "wal":
        (folder / "0.sqlite-wal").touch()
        (folder / "0.sqlite-wal").chmod(0o666)
        folder.chmod(0o711)
        path.unlink()
    elif hole == "owner":
        os.chown(path, 12345, -1)
    else:
        (path if hole == "file" else folder).chmod(0o770)
    pipeline.restart()
    assert pipeline.remembered() == folded(pipeline)
    assert not (tmp_path / "ran").exists()
    (said,) = [r.getMessage() for r in caplog.records if "another user" in r.getMessage()]
    assert str(folder) in said
    assert list(folder.glob("*.set-aside"))
    pipeline.snapshots.close()
    caplog.clear()
    pipeline.restart()
    assert (pipeline.resumed_at > 100, caplog.messages) == (True, [])


def test_snapshots_are_written_for_their_user_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        taken(tmp_path).snapshots.close()
    finally:
        os.umask(before)
    folder = tmp_path / "snapshots"
    modes = {path.stat().st_mode & 0o777 for path in folder.iterdir()}
    assert (folder.stat().st_mode & 0o777, modes) == (0o700, {0o600})


def test_a_writer_that_slept_does_not_write_over_a_later_snapshot(tmp_path: Path) -> None:
    path = tmp_path / "snapshots" / "0.sqlite"
    path.parent.mkdir()
    sleeper, awake = Snapshot(path, "code"), Snapshot(path, "code")
    awake.write(10, "a run", {("till", "a"): ("new", 10)}, {})
    with pytest.raises(sqlite3.IntegrityError):
        sleeper.write(3, "another", {("till", "a"): ("old", 3)}, {})
    assert awake.load(("till", "a")) == ("new", 10)
    assert Snapshot(path, "code").position == 10


def test_what_could_not_be_written_stays_in_memory(tmp_path: Path) -> None:
    known = Aggregates(Snapshot(tmp_path / "0.sqlite", "code"))
    ten: dict[Key, Versioned] = {("till", str(i)): (i, 1) for i in range(10)}
    newer: dict[Key, Versioned] = {("till", "3"): ("newer", 2)}
    known.update(ten)
    changed = known.take_changed()
    known.update(newer)
    known.put_back(changed)
    known.forget(0)
    assert len(known) == 10
    assert known.take_changed() == ten | newer


def test_another_domain_is_other_code() -> None:
    assert code_of(shop) == code_of(shop) != code_of(bank)


def test_a_pipeline_resumes_from_snapshots_with_few_aggregates_in_memory(
    settings: Settings, up: Callable[..., Up]
) -> None:
    settings = settings.model_copy(
        update={"snapshot_rows": 50, "aggregates_in_memory": 10, "batch_max": 25}
    )
    commands = shopping(1_500)
    pipeline = up(settings)
    with pipeline.ready() as producer:
        for at, end in ((0, 500), (500, 1_000), (1_000, 1_500)):
            producer.send_many(commands[at:end])
            if end == 500:
                pipeline.settle()
                assert pipeline.stop() == 0, pipeline.errors()
                pipeline.start()
            elif end == 1_000:
                pipeline.kill()
                pipeline.start()
    pipeline.settle()
    check(settings, commands)
    assert pipeline.stop() == 0, pipeline.errors()
    log = Log.open(settings.events, domain="shop")
    for number in range(log.partitions):
        with sqlite3.connect(settings.data / "snapshots" / f"{number}.sqlite") as db:
            (position,) = db.execute("SELECT position FROM about").fetchone()
        assert position == log.next_position(number)
    assert foldlog(settings, "verify").returncode == 0


def test_a_batch_that_is_decided_before_the_last_one_is_committed_waits(tmp_path: Path) -> None:
    pipeline = WithSnapshots(tmp_path, rows=1)
    pipeline.handle(shopping(10), 0)
    pipeline.snapshots._settle(wait=True)
    held = pipeline.snapshots._open[0].position
    partition: Partition = pipeline.partitions[0]
    decided = pipeline.decide(0, [entry(100, shopping(30, seed=3)[-1])])
    pipeline.snapshots.committed(partition, decided.first)  # its predecessor's end
    pipeline.snapshots._settle(wait=True)
    assert pipeline.snapshots._open[0].position == held


def test_folded_rows_come_from_a_snapshot_and_the_log_after_it_and_are_those_of_the_log(
    tmp_path: Path,
) -> None:
    pipeline = WithSnapshots(tmp_path)
    commands = shopping(60)
    for first in range(0, 60, 7):
        pipeline.handle(commands[first : first + 7], first)
    pipeline.snapshots._settle(wait=True)
    folder, end = tmp_path / "snapshots", pipeline.log.next_position(0)
    with saved_states(folder, 0, code_of(shop)) as found:
        held = found.position
        assert 0 < held < end
    deployed = Deployment(Settings(data=tmp_path), shop, pipeline.log)

    def rows(end: int, *, from_the_log: bool = False) -> list[dict[str, Any]]:
        folded = refolded(deployed, lambda _: None, from_the_log=from_the_log)
        found = folded({}, {0: end})["cart"].to_pylist()
        return sorted(found, key=itemgetter("aggregate_id"))

    assert rows(end) == rows(end, from_the_log=True)
    true = rows(held, from_the_log=True)

    def write(checksum: int) -> None:
        with sqlite3.connect(folder / "0.sqlite") as db:
            changed = "UPDATE aggregates SET version = 1, state = ?, checksum = ?"
            db.execute(changed, [other, checksum])

    other = pickle.dumps(cart.initial)
    write(crc32(other, 1))
    assert rows(held) != rows(held, from_the_log=True) == true, "the snapshot is read"
    folder.chmod(0o777)
    assert rows(held) == true, "not where another user could have written it"
    folder.chmod(0o700)
    write(0)
    assert rows(held) == true, "nor where it is damaged"
    pipeline.snapshots.close()
