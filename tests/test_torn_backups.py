"""Partitions from backups of different moments do not start, and are cut back to where they fit."""

from __future__ import annotations

import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ingest import crash
from ingest.errors import LogMismatch
from pipeline.log import compaction
from pipeline.log.log import Log
from pipeline.log.tail import end_of
from pipeline.operate.cut import restore
from pipeline.operate.inputs_at import inputs_at
from pipeline.settings import Settings
from tests.command_line import one_line_of
from tests.domains.transfers import Close, Deposit, Transfer, transfers
from tests.reacting import NOBODY, Workers, check_sends
from tests.running import DEADLINE_S, Up, foldlog, wait_for

DOMAIN = "tests.domains.transfers:transfers"
NAMES = [f"n{number}" for number in range(12)]


def trade(pipeline: Up, settings: Settings, first: int) -> None:
    """Money goes round, in many commits, until all is handled."""
    with pipeline.ready() as producer:
        for name in NAMES:
            key = f"{first}-{name}"
            producer.send(Deposit(command_id=f"d-{key}", account_id=name, cents=100))
        producer.send(Close(command_id=f"c-{first}", account_id=NAMES[-1]))
        for turn in range(3):
            for number, name in enumerate(NAMES[:-1]):
                to = NAMES[(number + turn + 1) % len(NAMES)]
                key = f"{first}-{turn}-{name}"
                sent = Transfer(command_id=f"t-{key}", account_id=name, to_account=to, cents=3)
                producer.send(sent)
    log = Log.open(settings.events, domain="transfers")
    pipeline.settle()
    wait_for(lambda: not waiting(log), "the sends")
    pipeline.settle()
    assert pipeline.stop() == 0


def waiting(log: Log) -> bool:
    tails = {p: log.tail(p) for p in range(log.partitions)}
    return any(
        tails[to].inputs.cursors.get(sender, 0) <= last
        for sender, tail in tails.items()
        for to, last in tail.inputs.sent.items()
    )


@pytest.mark.parametrize("compacted", [False, True])
def test_a_torn_backup_is_refused_cut_back_and_goes_on(
    settings: Settings, up: Callable[..., Up], tmp_path: Path, compacted: bool
) -> None:
    settings = settings.model_copy(update={"domain": DOMAIN, "batch_max": 5, "workers": 2})
    trade(up(settings), settings, 1)
    older = Path(shutil.copytree(settings.events, tmp_path / "older"))
    trade(up(settings), settings, 2)
    log = Log.open(settings.events, domain="transfers")
    if compacted:
        compaction.merge(log)
        compaction.remove_covered(log, grace_s=0)
    for partition in (0, 2):
        shutil.rmtree(log.partition_folder(partition))
        shutil.copytree(older / f"partition={partition}", log.partition_folder(partition))
    before = sorted(path.name for path in settings.events.rglob("*"))

    refused = up(settings)  # both workers: one that went on would fill what was read already
    assert refused.process.wait(timeout=DEADLINE_S) == 1
    said = refused.errors()
    assert "has handled what partition" in said
    assert "one of them is from another backup" in said
    assert "Traceback" not in said
    told = foldlog(settings, "restore")
    assert told.returncode == 0
    *goes, last = told.stdout.splitlines()
    assert {"partition 1", "partition 3"} <= {line.split(":")[0] for line in goes}
    assert len(goes) == 2, "what is from the older backup stays"
    for line in goes:
        number, gone, of, first, last_position = map(int, re.findall(r"\d+", line))
        assert gone == last_position + 1 - first
        assert of == log.next_position(number) == last_position + 1
    assert last == "say --yes to do it"
    assert sorted(path.name for path in settings.events.rglob("*")) == before

    went = foldlog(settings, "restore", "--yes")
    assert went.stdout.splitlines()[:-1] == [line.replace("would go", "went") for line in goes]
    trade(up(settings), settings, 3)
    verified = foldlog(settings, "verify")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    nothing = foldlog(settings, "restore")
    assert "nothing is to be cut" in nothing.stdout
    workers = Workers(settings.data, transfers, [[0, 1, 2, 3]])
    check_sends(workers, complete=True)


def test_a_log_on_which_a_pipeline_runs_is_not_cut(
    settings: Settings, up: Callable[..., Up]
) -> None:
    settings = settings.model_copy(update={"domain": DOMAIN})
    up(settings).settle()
    assert "stop it first" in one_line_of(foldlog(settings, "restore"))


def torn(folder: Path) -> tuple[Settings, Log]:
    """Partition 1 has read more of partition 0 than there is, and all of its own; its first commits
    are compacted, and of those that were, some are removed.
    """
    workers = Workers(folder, transfers, [[0], [1, 2]])
    workers.send(Deposit(account_id="a", cents=1000))
    for number in range(40):
        workers.send(Transfer(account_id="a", to_account="gb"[number % 2], cents=2))
        workers.send(Transfer(account_id="g", to_account="i", cents=1))
        workers.settle()
        if number == 3:
            shutil.copytree(workers.log.partition_folder(0), folder / "older")
        if number == 34:
            compaction.merge(workers.log)
    covered = [f for f in workers.log.all_files(1) if f not in workers.log.files(1)]
    assert len(covered) > 10
    for file in covered[:2]:
        file.path.unlink()
    shutil.rmtree(workers.log.partition_folder(0))
    shutil.move(folder / "older", workers.log.partition_folder(0))
    settings = Settings(data=folder, redis_url=NOBODY, domain=DOMAIN)
    return settings, workers.log


def rows(log: Log, partition: int) -> list[dict[str, Any]]:
    return pa.concat_tables(log.read(partition)).to_pylist()


def test_a_compacted_file_is_cut_at_the_first_command_that_nobody_has_sent(tmp_path: Path) -> None:
    settings, log = torn(tmp_path)
    end = log.next_position(0)
    before = {partition: rows(log, partition) for partition in (1, 2)}
    restore(settings, yes=True)
    for partition, held in before.items():
        sources = [row["stream_id"] for row in held]
        cut = next(at for at, source in enumerate(sources) if source in beyond(end))
        assert 0 < cut < len(held)
        assert rows(log, partition) == held[:cut]
    workers = Workers(tmp_path, transfers, [[0], [1, 2]])
    workers.settle()
    workers.send(Transfer(account_id="a", to_account="g", cents=1))
    workers.settle()
    check_sends(workers, complete=True)


def beyond(end: int) -> set[str]:
    """What sends of partition 0 are called that stood at `end` or later."""
    return {f"0/{position}" for position in range(end, 1_000)}


@pytest.mark.parametrize("seed", range(4))
def test_rows_say_how_far_the_inputs_were_read_as_their_commits_do(
    tmp_path: Path, seed: int
) -> None:
    draw = random.Random(seed)
    workers = Workers(tmp_path, transfers, [[0], [1, 2]])
    for number in range(40):
        account_id, to_account = draw.choices("abgi", k=2)
        sent = Transfer(account_id=account_id, to_account=to_account, cents=2)
        workers.send(sent if number > 5 else Deposit(account_id=account_id, cents=9))
        workers.now_ms += draw.choice([1, 90_000_000])
        workers.step(*draw.choice([(0, 0), (1, 1), (1, 2)]), draw.randint(1, 5))
    workers.settle()
    tails = [(p, end_of(file)) for p in range(3) for file in workers.log.files(p)]
    assert any(p in tail.inputs.cursors for p, tail in tails), "own sends, too"
    for partition, tail in tails:
        assert inputs_at(workers.log, partition, tail.next_position) == tail.inputs


def test_what_was_cut_before_stays_when_files_of_the_same_names_are_cut(tmp_path: Path) -> None:
    settings, log = torn(tmp_path)
    before = content(log)
    cuts = restore(settings, yes=True)
    went = before.items() - content(log).items()
    assert len(went) > 10
    for times in (2, 3):
        for path, held in went:  # the same backup, put there once more
            path.write_bytes(held)
        assert restore(settings, yes=True) == cuts
        aside = [held for path, held in content(log).items() if path.suffix == ".cut"]
        assert sorted(aside) == sorted(times * [held for _, held in went])


def content(log: Log) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in log.folder.glob("partition=*/*.parquet*")}


class Killed(BaseException):
    """In place of the end of the process."""


@pytest.mark.parametrize("point", ["cut.to_rename", "cut.renamed", "cut.fsynced", "commit.linked"])
def test_a_restore_that_is_killed_anywhere_leaves_a_log_without_gaps_and_can_be_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    settings, log = torn(tmp_path)
    with pytest.raises(LogMismatch, match="partition 1 has handled what partition 0 sent"):
        Workers(tmp_path, transfers, [[0], [1, 2]])
    kills = 0
    while True:
        with monkeypatch.context() as patched:
            patched.setattr(crash, "point", dies_at_the_second(point))
            try:
                restore(settings, yes=True)
                break
            except Killed:
                kills += 1
        for partition in range(3):
            files = log.files(partition)
            assert not files or files[0].first == 0, f"partition {partition} has lost its beginning"
            assert all(len(rows) for rows in log.read(partition))
    assert kills > (5 if "rename" in point else 0)
    workers = Workers(tmp_path, transfers, [[0], [1, 2]])
    workers.send(Transfer(account_id="a", to_account="g", cents=1))
    workers.settle()
    check_sends(workers, complete=True)


def dies_at_the_second(point: str) -> Callable[[str], None]:
    """So that each try gets one step further."""
    left = 2

    def come_by(name: str) -> None:
        nonlocal left
        left -= name == point
        if not left:
            raise Killed

    return come_by
