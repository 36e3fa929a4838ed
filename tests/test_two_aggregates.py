"""Two kinds of aggregate in one domain: their ids may be equal, and they never meet."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.entries import Entry
from ingest.errors import CommandInvalid, NotAvailable
from ingest.wire import Wire
from pipeline.operate.history import history
from pipeline.operate.verify import verify
from pipeline.read.rebuild import rebuild
from pipeline.settings import Settings
from tests.command_line import one_line_of
from tests.domains import depot as module
from tests.domains.depot import Price, PriceSet, SetPrice, Stock, depot
from tests.more import examples
from tests.oracle import partition_of
from tests.running import InProcess, Up, chunked, entry, foldlog, read
from tests.stocktaking import Expected, Json, expect, trading

NAME = "tests.domains.depot:depot"
PARTITIONS = 2


def run(pipeline: InProcess, commands: list[Json]) -> None:
    """One batch for each partition; their order is that of the ids' numbers."""
    entries: list[list[Entry]] = [[] for _ in range(PARTITIONS)]
    for command in commands:
        number = int(command["command_id"].removeprefix("c"))
        entries[partition_of(command["product_id"], PARTITIONS)].append(entry(number, command))
    for partition, batch in enumerate(entries):
        pipeline.decide(partition, batch)
    pipeline.flush()


def assert_shown(path: Path, expected: Expected) -> None:
    """The read models of a published file are as expected."""
    shown = read(path, "stocks", "prices", "happenings", "outcomes", "events")
    assert {i: (u, v) for i, u, v, *_ in shown["stocks"]} == expected.stocks
    assert {i: (c, low, v) for i, c, low, v, *_ in shown["prices"]} == expected.prices
    lives = {key: len(life) for key, life in expected.lives.items() if life}
    assert {(kind, i): n for kind, i, n in shown["happenings"]} == lives
    with duckdb.connect(str(path), read_only=True) as db:
        outcomes = db.execute("SELECT command_id, outcome, reason FROM outcomes").fetchall()
        refused = db.execute("SELECT command_id, aggregate FROM rejections").fetchall()
    assert {i: (outcome, reason) for i, outcome, reason in outcomes} == expected.outcomes
    for command_id, aggregate in refused:
        assert aggregate == ("price" if "price" in expected.outcomes[command_id][1] else "stock")


def kept(pipeline: InProcess) -> dict[tuple[str, str], Any]:
    """What the write side has in memory of each aggregate that has events."""
    found = {}
    for row in pipeline.rows().select(["partition", "aggregate", "aggregate_id"]).to_pylist():
        key = row["aggregate"], row["aggregate_id"]
        found[key] = pipeline.partitions[row["partition"]].aggregates.get(key)
    return {key: versioned for key, versioned in found.items() if versioned}


def states(expected: Expected) -> dict[tuple[str, str], Any]:
    found: dict[tuple[str, str], Any] = {}
    for (kind, product), life in expected.lives.items():
        if life:
            state = Price(tuple(n for _, n in life)) if kind == "price" else Stock(
                expected.stocks[product][0])  # fmt: skip
            found[kind, product] = state, len(life)
    return found


@pytest.mark.parametrize("seed", [1, 2])
def test_equal_ids_of_two_kinds_are_two_aggregates_live_restarted_rebuilt_and_verified(
    tmp_path: Path, seed: int
) -> None:
    commands = trading(200, seed)
    expected = expect(commands)
    assert len(expected.stocks.keys() & expected.prices.keys()) > 3, "ids that both kinds have"
    pipeline = InProcess(tmp_path, depot, PARTITIONS)
    for number, batch in enumerate(chunked(commands, [40] * 4)):
        run(pipeline, batch)
        if number in (1, 3):
            pipeline.restart()
    assert kept(pipeline) == states(expected)
    assert_shown(pipeline.publish(), expected)
    pipeline.writer.close()
    settings = Settings(data=tmp_path, domain=NAME)
    assert verify(settings, lambda *_: None).wrong == []
    with duckdb.connect(str(settings.published)) as db:
        db.execute("UPDATE live.prices SET cents = 99 WHERE product_id = 'tea'")
    (wrong,) = verify(settings, lambda *_: None).wrong
    assert "read model prices: 2 rows differ" in wrong
    rebuild(settings, [], everything=True, seen=lambda *_: None)
    assert_shown(settings.published, expected)
    assert verify(settings, lambda *_: None).wrong == []


@examples(6)
@given(
    seed=st.integers(0, 1000),
    sizes=st.lists(st.integers(1, 30), max_size=6),
    restarts=st.lists(st.booleans(), min_size=1, max_size=4),
)
def test_any_batches_and_restarts_give_the_same_two_tables(
    tmp_path_factory: pytest.TempPathFactory, seed: int, sizes: list[int], restarts: list[bool]
) -> None:
    commands = trading(60, seed, ["tea", "7"])
    pipeline = InProcess(tmp_path_factory.mktemp("depot"), depot, PARTITIONS)
    for number, batch in enumerate(chunked(commands, sizes)):
        run(pipeline, batch)
        if restarts[number % len(restarts)]:
            pipeline.restart()
    assert kept(pipeline) == states(expect(commands))
    assert_shown(pipeline.publish(), expect(commands))
    pipeline.writer.close()


def test_each_kind_has_its_own_versions_and_a_command_may_expect_one(tmp_path: Path) -> None:
    commands = [
        {"type": "Receive", "command_id": "1", "product_id": "tea", "units": 5},
        {"type": "Receive", "command_id": "2", "product_id": "tea", "units": 1},
        {"type": "SetPrice", "command_id": "3", "product_id": "tea", "cents": 5,
         "expected_version": 0},
        {"type": "Take", "command_id": "4", "product_id": "tea", "units": 2,
         "expected_version": 2},
        {"type": "SetPrice", "command_id": "5", "product_id": "tea", "cents": 6,
         "expected_version": 3},
    ]  # fmt: skip
    pipeline = InProcess(tmp_path, depot, partitions=1)
    rows = pipeline.run(0, *commands)
    pipeline.writer.close()
    assert [(row["aggregate"], row["aggregate_id"], row["version"]) for row in rows] == [
        ("stock", "tea", 1), ("stock", "tea", 2), ("price", "tea", 1), ("stock", "tea", 3),
        ("price", "tea", None),
    ]  # fmt: skip
    assert rows[-1]["reason"] == "the version is 1, not 3"


def test_a_history_is_of_one_kind_which_has_to_be_named_where_several_have_the_id(
    tmp_path: Path,
) -> None:
    only_price = {"type": "SetPrice", "command_id": "c80", "product_id": "salt", "cents": 3}
    commands = [*trading(80, products=["tea"]), only_price]
    pipeline = InProcess(tmp_path, depot, PARTITIONS)
    run(pipeline, commands)
    pipeline.writer.close()
    settings = Settings(data=tmp_path, domain=NAME)
    for (kind, product), life in expect(commands).lives.items():
        found = history(product, settings, aggregate=kind)
        assert [(h.event_type, *h.event.values()) for h in found] == life
        assert [h.version for h in found] == [*range(1, len(life) + 1)]
    either = r"say with --aggregate which tea is meant: (stock, price|price, stock)$"
    with pytest.raises(NotAvailable, match=either):
        history("tea", settings)
    with pytest.raises(NotAvailable, match="there is no aggregate 'cart'; there are stock, price"):
        history("tea", settings, aggregate="cart")
    assert [h.event for h in history("salt", settings)] == [{"cents": 3}]
    with pytest.raises(NotAvailable, match="nothing has happened to product_id salt"):
        history("salt", settings, aggregate="stock")
    with pytest.raises(NotAvailable, match="nothing has happened to product_id milk"):
        history("milk", settings, aggregate="price")


def test_who_sends_a_command_that_names_no_aggregate_is_told_what_it_may_be() -> None:
    wire = Wire(depot, PARTITIONS)
    known = r"a command needs the field type, one of Receive, Take, SetPrice"
    for command in ({"product_id": "tea"}, {"type": "Steal", "product_id": "tea"}):
        with pytest.raises(CommandInvalid, match=known):
            wire.encode(command)
    with pytest.raises(CommandInvalid, match="a command needs the field product_id, a string"):
        wire.encode({"type": "SetPrice", "cents": 1})
    _, (stream, _) = wire.encode(SetPrice(command_id="1", product_id="{tea}/green", cents=1))
    assert stream == f"{{depot-{partition_of('tea', PARTITIONS)}}}:commands"


def test_a_payload_that_names_no_aggregate_is_unreadable_and_one_that_does_is_of_that_kind(
    tmp_path: Path,
) -> None:
    pipeline = InProcess(tmp_path, depot, partitions=1)
    nobody, price = pipeline.run(
        0,
        {"type": "Steal", "command_id": "1", "product_id": "tea"},
        {"type": "SetPrice", "command_id": "2", "product_id": "tea", "cents": "free"},
    )
    pipeline.writer.close()
    assert (nobody["aggregate"], nobody["aggregate_id"]) == (None, None)
    assert (price["aggregate"], price["aggregate_id"]) == ("price", "tea")


def test_a_running_pipeline_serves_both_kinds(settings: Settings, up: Callable[..., Up]) -> None:
    settings = settings.model_copy(update={"domain": NAME})
    commands = trading(300)
    pipeline = up(settings)
    with pipeline.ready() as producer:
        producer.send_many(commands)
    pipeline.settle()
    expected = expect(commands)
    assert_shown(settings.published, expected)
    life = foldlog(settings, "history", "tea", "--aggregate", "price", "--format", "json").stdout
    shown = [json.loads(line) for line in life.splitlines()]
    assert [(h["event_type"], h["event"]["cents"]) for h in shown] == expected.lives["price", "tea"]
    assert "say with --aggregate which tea is meant" in one_line_of(
        foldlog(settings, "history", "tea")
    )
    assert pipeline.stop() == 0, pipeline.errors()
    pipeline = up(settings)
    more = trading(100, seed=8)
    for command in more:
        command["command_id"] += " more"
    with pipeline.ready() as producer:
        producer.send_many(more)
    pipeline.settle()
    assert_shown(settings.published, expect([*commands, *more]))
    assert foldlog(settings, "rebuild", "--all").returncode == 0
    assert_shown(settings.published, expect([*commands, *more]))
    assert foldlog(settings, "verify").returncode == 0


def test_types_tell_who_mixes_two_aggregates_up(tmp_path: Path) -> None:
    """Under `mypy --strict`, as it is, and with mistakes."""
    text = Path(module.__file__).read_text()
    mistakes = {
        "another_event": ("return [Received(command.units)]", "return [PriceSet(command.units)]"),
        "another_rule": ("decide=decide_price", "decide=decide_stock"),
        "a_case_too_few": ("case Taken(units):", "case Received(units):"),
        "no_such_field": ("Stock(stock.units + units)", "Stock(stock.cents + units)"),
    }  # fmt: skip
    for name, (right, wrong) in mistakes.items():
        assert text.count(right) == 1
        (tmp_path / f"{name}.py").write_text(text.replace(right, wrong))
    (tmp_path / "right.py").write_text(text)
    words = ["-m", "mypy", "--strict", "--no-error-summary", f"--cache-dir={tmp_path}/cache"]
    ran = subprocess.run(
        [sys.executable, *words, *map(str, tmp_path.glob("*.py"))], capture_output=True, text=True
    )
    told = {Path(line.partition(":")[0]).stem for line in ran.stdout.splitlines()}
    assert told == {*mistakes}, ran.stdout + ran.stderr
    assert PriceSet in depot.events.values()
