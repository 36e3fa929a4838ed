"""Questions: typed ones, about any moment, about one life; answers hold what was written."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from pydantic import ValidationError

from ingest.errors import NotAvailable, OutcomeTimeout, ReadModelFailed
from ingest.outcome import Outcome
from ingest.shop.cart import CheckOut
from pipeline.log.log import Log
from pipeline.operate.as_of import as_of
from pipeline.operate.history import history
from pipeline.settings import Settings
from projections import ask, connect
from projections.queries import RejectionReasons, queries
from projections.shop.queries import (
    AbandonedCarts,
    CartFunnel,
    GetCart,
    GetCartItems,
    ProductSales,
    SalesByDay,
    TopProducts,
)
from tests import oracle
from tests.running import LATE_2023_MS, InProcess, Up, entry, foldlog, sorted_rows
from tests.shopping import shopping

PARTITIONS = 2
Json = dict[str, Any]


def in_order(commands: list[Json]) -> list[Json]:
    """The same, but occurring one after the other."""
    start = datetime(2017, 1, 1, tzinfo=UTC)
    return [
        c | {"occurred_at": (start + timedelta(hours=i)).isoformat()}
        for i, c in enumerate(commands)
    ]


def run(pipeline: InProcess, commands: list[Json]) -> None:
    for partition in range(PARTITIONS):
        batch = [
            entry(i, c)
            for i, c in enumerate(commands)
            if oracle.partition_of(c["cart_id"], PARTITIONS) == partition
        ]
        for at in range(0, len(batch), 50):
            pipeline.flush([pipeline.decide(partition, batch[at : at + 50])])


@pytest.fixture(scope="module")
def commands() -> list[Json]:
    return in_order(shopping(600))


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, commands: list[Json]) -> Settings:
    """What all tests here only look at."""
    folder = tmp_path_factory.mktemp("shop")
    pipeline = InProcess(folder, partitions=PARTITIONS)
    run(pipeline, commands)
    pipeline.publish()
    pipeline.writer.close()
    return Settings(data=folder)


def carts(db: duckdb.DuckDBPyConnection) -> dict[str, list[Any]]:
    found = db.execute("SELECT cart_id, status, units, value_cents, version FROM carts").fetchall()
    return {cart_id: list(rest) for cart_id, *rest in found}


def items(db: duckdb.DuckDBPyConnection) -> dict[tuple[str, str], list[int]]:
    found = db.execute("SELECT cart_id, product_id, quantity, value_cents FROM cart_items")
    return {(c, p): [q, v] for c, p, q, v in found.fetchall()}


@pytest.mark.parametrize("count", [1, 137, 400, 600])
def test_the_read_models_can_be_seen_as_they_were_recorded_at_any_moment(
    shop: Settings, commands: list[Json], count: int
) -> None:
    count = (count + 9) // 10 * 10  # ten commands to a millisecond
    at = datetime.fromtimestamp((LATE_2023_MS + count / 10 - 1) / 1000, UTC)
    expected = oracle.expect(commands[:count])
    with as_of(at, settings=shop) as db:
        assert carts(db) == expected.carts
        assert items(db) == expected.items
        (outcomes,) = db.execute("SELECT count(*) FROM outcomes").fetchone() or (0,)
        assert outcomes == len(expected.outcomes)
        db.execute("FROM sales_monthly")


@pytest.mark.parametrize("count", [1, 137, 600])
def test_or_as_things_had_occurred_by_then(
    shop: Settings, commands: list[Json], count: int
) -> None:
    at = datetime.fromisoformat(commands[count - 1]["occurred_at"])
    expected = oracle.expect(commands[:count])
    with as_of(at, by="occurred_at", query="FROM carts, cart_items", settings=shop) as db:
        assert carts(db) == expected.carts
        assert items(db) == expected.items
        with pytest.raises(duckdb.CatalogException):  # only what the query names is built
            db.execute("FROM product_daily")


def test_a_view_brings_what_it_reads(shop: Settings) -> None:
    at = datetime(2017, 1, 10)
    with as_of(at, by="occurred_at", query="FROM sales_monthly", settings=shop) as db:
        (units,) = db.execute("SELECT sum(units) FROM sales_monthly").fetchone() or (0,)
        (events,) = db.execute(
            "SELECT sum(CASE event_type WHEN 'ProductAdded' THEN quantity ELSE -quantity END)"
            " FROM events"
        ).fetchone() or (0,)
        assert units == events > 0


def test_the_log_keeps_what_a_connection_about_the_past_reads(shop: Settings) -> None:
    log = Log.open(shop.events, domain="shop")
    past = as_of(datetime(2100, 1, 1), query="FROM events", settings=shop)
    with log.removing() as allowed:
        assert not allowed
    assert past.execute("SELECT count(*) > 0 FROM events").fetchall() == [(True,)]
    del past
    gc.collect()
    with log.removing() as allowed:
        assert allowed


def test_events_that_make_no_history_by_that_time_are_one_error(tmp_path: Path) -> None:
    pipeline = InProcess(tmp_path, partitions=PARTITIONS)
    run(pipeline, shopping(600))  # occurring in no order
    pipeline.writer.close()
    with pytest.raises(ReadModelFailed, match="ask by recorded_at"):
        as_of(datetime(2017, 5, 1), by="occurred_at", settings=Settings(data=tmp_path))


def test_a_history_shows_each_event_with_the_state_after_it(
    shop: Settings, commands: list[Json]
) -> None:
    cart_id = max(oracle.expect(commands).carts.items(), key=lambda cart: cart[1][3])[0]
    mine = [c for c in commands if c["cart_id"] == cart_id]
    life = history(cart_id, shop)
    assert len(life) > 3
    states = []
    for count in range(1, len(mine) + 1):
        now = oracle.expect(mine[:count]).carts.get(cart_id)
        if now and now[3] == len(states) + 1:
            states.append(now)
    assert [[*h.state.values(), h.version] for h in life] == states
    assert life[0].event == {f: mine[0][f] for f in ("product_id", "quantity", "unit_price_cents")}
    with pytest.raises(NotAvailable, match="nothing has happened to nobody"):
        history("nobody", shop)


def test_typed_queries_answer_with_what_the_oracle_says(
    shop: Settings, commands: list[Json]
) -> None:
    expected = oracle.expect(commands)
    with connect(shop.published) as db:
        cart_id, (status, units, value, version) = next(iter(expected.carts.items()))
        cart = ask(db, GetCart(cart_id=cart_id))
        assert cart is not None
        assert (cart.status, cart.units, cart.value_cents, cart.version) == (
            status, units, value, version,
        )  # fmt: skip
        assert ask(db, GetCart(cart_id="'; DROP TABLE carts; --")) is None

        full = max(expected.items)[0]
        assert {
            (full, i.product_id): [i.quantity, i.value_cents]
            for i in ask(db, GetCartItems(cart_id=full))
        } == {key: item for key, item in expected.items.items() if key[0] == full}

        since, until = date(2017, 1, 5), date(2017, 1, 20)
        days = {
            key: sales for key, sales in expected.daily.items()
            if str(since) <= key[1] <= str(until)
        }  # fmt: skip
        products: dict[str, list[int]] = {}
        for (product, _), (added, removed, revenue) in days.items():
            sums = products.setdefault(product, [0, 0])
            sums[0] += added - removed
            sums[1] += revenue
        top = sorted(products.items(), key=lambda p: (-p[1][1], p[0]))[:3]
        assert ask(db, TopProducts(since=since, until=until, limit=3)) == [
            ProductSales(product_id=p, units=u, revenue_cents=r) for p, (u, r) in top
        ]
        by_day: dict[str, int] = {}
        for (_, day), sales in days.items():
            by_day[day] = by_day.get(day, 0) + sales[2]
        shown = ask(db, SalesByDay(since=since, until=until))
        assert [(str(s.day), s.revenue_cents) for s in shown] == sorted(by_day.items())

        funnel = ask(db, CartFunnel())
        assert sum(hour.carts_begun for hour in funnel) == len(expected.carts)
        closed = [c for c in expected.carts.values() if c[0] == "checked out"]
        assert sum(hour.carts_checked_out for hour in funnel) == len(closed)

        reasons = {r.reason: r.commands for r in ask(db, RejectionReasons())}
        refused = [reason for _, reason in expected.outcomes.values() if reason]
        assert reasons == {reason: refused.count(reason) for reason in refused}
        assert ask(db, RejectionReasons(until=date(2001, 1, 1))) == []


def test_abandoned_carts_are_open_full_and_idle(shop: Settings, commands: list[Json]) -> None:
    expected = oracle.expect(commands)
    accepted = [c for c in commands if expected.outcomes[c["command_id"]][0] == "accepted"]
    newest = {c["cart_id"]: datetime.fromisoformat(c["occurred_at"]) for c in accepted}
    idle = timedelta(days=10)
    with connect(shop.published) as db:
        found = {c.cart_id for c in ask(db, AbandonedCarts(idle_for=idle))}
        long_after = max(newest.values()) + timedelta(days=100)
        later = {c.cart_id for c in ask(db, AbandonedCarts(idle_for=idle, now=long_after))}
    open_carts = {i for i, cart in expected.carts.items() if cart[0] == "open" and cart[1]}
    assert found == {i for i in open_carts if newest[i] <= max(newest.values()) - idle}
    assert later == open_carts
    assert set() < found < later


def test_a_query_checks_its_parameters() -> None:
    with pytest.raises(ValidationError):
        TopProducts(limit=0)
    with pytest.raises(ValidationError):
        GetCart(cart="7")  # type: ignore[call-arg]


def test_a_connection_moves_on_with_what_is_published(tmp_path: Path) -> None:
    pipeline = InProcess(tmp_path, partitions=PARTITIONS)
    commands = in_order(shopping(100))
    run(pipeline, commands[:50])
    with connect(pipeline.publish(), sandbox=False) as db:
        count = "SELECT count(*) FROM outcomes"
        kept = db.newest
        relation = db.sql(count)
        before = db.execute(count)
        run(pipeline, commands)
        pipeline.publish()
        assert before.fetchall() == relation.fetchall() == kept.execute(count).fetchall()
        (moved_on,) = db.execute(count).fetchone() or (0,)
        assert moved_on == len({c["command_id"] for c in commands})
        assert sorted_rows(db.newest, "SHOW TABLES")
        with pytest.raises(duckdb.Error, match="read-only"):
            db.execute("DELETE FROM live.positions")
        with pytest.raises(OutcomeTimeout, match="was not published within"):
            db.wait_for(Outcome("accepted", "1", 0, 10_000), timeout=0.05)
    pipeline.writer.close()
    with pytest.raises(NotAvailable):
        connect(tmp_path / "nothing.duckdb")


def test_a_producer_reads_what_it_wrote(settings: Settings, up: Callable[..., Up]) -> None:
    with up(settings).ready() as producer:
        first = producer.execute(
            {
                "type": "AddProduct", "command_id": "1", "cart_id": "7", "product_id": "tea",
                "quantity": 2, "unit_price_cents": 450,
            }
        )  # fmt: skip
        db = connect(settings.published)
        db.wait_for(first)
        assert [i.quantity for i in ask(db, GetCartItems(cart_id="7"))] == [2]
        db.wait_for(producer.execute(CheckOut(command_id="2", cart_id="7")))
        cart = ask(db, GetCart(cart_id="7"))
        assert cart is not None
        assert cart.status == "checked out"


def test_the_command_line_asks_them_too(shop: Settings, commands: list[Json]) -> None:
    def asked(*words: str) -> Any:
        shown = foldlog(shop, *words, "--format", "json")
        assert shown.returncode == 0, shown.stderr
        return json.loads(shown.stdout)

    cart_id = next(iter(oracle.expect(commands).carts))
    (cart,) = asked("query", "GetCart", "--param", f"cart_id={cart_id}")
    assert cart["cart_id"] == cart_id
    assert (
        len(asked("query", "TopProducts", "--param", "limit=2", "--param", "since=2017-01-02")) == 2
    )
    then = asked("query", "SELECT max(occurred_at) AS t FROM events", "--as-of", "2017-01-03T05:30",
                 "--by", "occurred_at")  # fmt: skip
    assert "2017-01-03 02" < then[0]["t"] <= "2017-01-03 05:30"
    shown = foldlog(shop, "history", cart_id, "--format", "json").stdout.splitlines()
    assert [json.loads(line)["version"] for line in shown] == [*range(1, len(shown) + 1)]
    assert "ProductAdded" in foldlog(shop, "history", cart_id).stdout

    for words, complaint in {
        ("query", "Nope"): "there are AbandonedCarts",
        ("query", "TopProducts", "--param", "limit=many"): "limit: Input should be a valid integer",
        ("query", "TopProducts", "--param", "most=3"): "it takes since, until, limit",
        ("query", "FROM carts", "--as-of", "9999-12-31T23:59-05:00"): "outside the years 1 to 9999",
        ("history", "nobody"): "nothing has happened to nobody",
    }.items():
        failed = foldlog(shop, *words)
        assert (failed.returncode, failed.stderr.count("\n")) == (1, 1)
        assert complaint in failed.stderr
    assert foldlog(shop, "query", "SELECT 1", "--as-of", "soon").returncode == 2
    assert foldlog(shop, "query", "SELECT 1", "--param", "a=b").returncode == 2


def test_each_typed_query_of_the_cart_is_known_by_name(shop: Settings) -> None:
    assert sorted(queries(shop.load_domain())) == [
        "AbandonedCarts", "CartFunnel", "GetCart", "GetCartItems", "RejectionReasons",
        "SalesByDay", "TopProducts",
    ]  # fmt: skip
