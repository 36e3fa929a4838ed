"""Declared once, kept two ways, the same rows."""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pytest

from ingest.domain import Domain
from ingest.errors import ReadModelInvalid
from ingest.shop import shop
from projections import declarations
from projections.model import Select, read_models
from projections.trial import Trial
from tests.domains.bank import bank
from tests.domains.carts import carts
from tests.models import PARTITIONS, cart_with, few_carts
from tests.more import MORE
from tests.oracle import partition_of
from tests.running import InProcess, entry, read, sorted_rows


def run_live(pipeline: InProcess, commands: list[tuple[int, dict[str, Any]]], size: int) -> None:
    """Batches of `size` commands, the partitions by turns, a flush for each."""
    for at in range(0, len(commands), size):
        chunk = commands[at : at + size]
        for number in range(PARTITIONS):
            entries = [entry(at + i, c) for i, (p, c) in enumerate(chunk) if p == number]
            if entries:
                pipeline.flush([pipeline.decide(number, entries)])


def plain(published: Path, sql: str) -> list[tuple[Any, ...]]:
    """What DuckDB itself says of a SELECT over all events, where events that tie are told apart."""
    sql = re.sub(r"ORDER BY ([^)]+)", r"ORDER BY \1, recorded_at, partition, position", sql)
    with duckdb.connect(str(published), read_only=True) as db:
        return sorted_rows(db, sql)


@pytest.mark.parametrize("seed", range(1 + MORE))
def test_each_shipped_model_shows_what_its_select_says_over_all_events(
    tmp_path: Path, seed: int
) -> None:
    pipeline = InProcess(tmp_path, partitions=PARTITIONS)
    run_live(pipeline, few_carts(seed), 20)
    published = pipeline.publish()
    for model in read_models(shop):
        if isinstance(model, Select):
            assert read(published, model.name)[model.name] == plain(published, model.sql)
    pipeline.writer.close()


@pytest.mark.parametrize("domain", [shop, bank], ids=["shop", "bank"])
def test_a_file_that_is_deleted_comes_back_from_the_log_with_the_same_rows(
    tmp_path: Path, domain: Domain
) -> None:
    pipeline = InProcess(tmp_path, domain, partitions=PARTITIONS)
    if domain is shop:
        run_live(pipeline, few_carts(1), 30)
    else:
        run_live(pipeline, transfers(), 3)
    names = [model.name for model in read_models(domain)]
    live = read(pipeline.publish(), *names)
    nothing_ordered = {"orders", "order_steps", "order_funnel", "orders_waiting", "stock"}
    assert {name for name, rows in live.items() if not rows} <= nothing_ordered
    pipeline.writer.close()
    (tmp_path / "writer.duckdb").unlink()
    pipeline.restart()
    assert read(pipeline.publish(), *names) == live
    pipeline.writer.close()


def transfers() -> list[tuple[int, dict[str, Any]]]:
    commands = []
    for number, account in enumerate("abcabcabc"):
        command = {"command_id": str(number), "account_id": account, "cents": 100 + number}
        if number < 6:
            command |= {"type": "Deposit", "note": None if number % 2 else "cash"}
        else:
            command |= {"type": "Transfer", "to_account": "z"}
        commands.append((partition_of(account, PARTITIONS), command))
    return commands


SELECTS = {
    "difference": "SELECT product_id, sum(quantity) - coalesce(sum(value_cents), 0) AS d"
    " FROM events GROUP BY product_id",
    "ratio": "SELECT occurred_at::DATE AS day, avg(quantity) AS mean,"
    " count(*) / count(product_id) AS r FROM events GROUP BY day HAVING count(product_id) > 1",
    "filtered": "SELECT upper(product_id) || '!' AS p, count(*) FILTER (quantity > 1) AS big,"
    " min(unit_price_cents) AS low, max(occurred_at) AS last FROM events"
    " WHERE product_id IS NOT NULL GROUP BY upper(product_id) || '!'",
    "by_number": "SELECT event_type, version % 2 = 0 AS even, bool_and(version < 5) AS small,"
    " bool_or(quantity > 2) AS many, bit_or(version) AS bits, bit_xor(version) AS odd_bits,"
    " bit_and(version) AS common FROM events GROUP BY 1, 2",
    "everything": "SELECT aggregate_id, any_value(partition) AS p, sum(quantity) FILTER"
    " (event_type = 'ProductAdded') * 2 AS twice FROM events GROUP BY ALL",
    "why": "SELECT reason, count(*) AS n, max(octet_length(payload)) AS longest FROM rejections"
    " GROUP BY reason",
    "keys_only": "SELECT DATE_TRUNC('month', occurred_at) AS month FROM events GROUP BY month",
    "newest": "SELECT product_id, last(unit_price_cents ORDER BY occurred_at) AS price,"
    " first(event_type ORDER BY occurred_at, version) FILTER (quantity > 1) AS begun,"
    " last(value_cents ORDER BY recorded_at) - 1 AS less FROM events GROUP BY product_id",
    "spread": "SELECT event_type, histogram(quantity) AS quantities, histogram(product_id)"
    " FILTER (version > 2) AS products FROM events GROUP BY event_type",
    "nulls": "SELECT product_id, quantity, count(*) AS n FROM events GROUP BY product_id, quantity",
}


@pytest.mark.parametrize(("count", "size"), [(20, 1), (120, 25), (120, 1000)])
def test_a_select_kept_live_equals_the_same_select_over_all_events(
    tmp_path: Path, count: int, size: int
) -> None:
    domain = cart_with(tmp_path / "sql", **SELECTS)
    pipeline = InProcess(tmp_path, domain, partitions=PARTITIONS)
    run_live(pipeline, few_carts(5, count), size)
    published = pipeline.publish()
    for name, sql in SELECTS.items():
        assert read(published, name)[name] == plain(published, sql), name
    pipeline.writer.close()


@pytest.mark.parametrize(
    ("sql", "complaint"),
    [
        ("SELECT median(quantity) AS m FROM events GROUP BY product_id", "median"),
        ("SELECT count(DISTINCT product_id) AS n FROM events GROUP BY aggregate_id", "DISTINCT"),
        ("SELECT product_id, count(*) AS n FROM events GROUP BY product_id LIMIT 3", "LIMIT"),
        ("SELECT product_id, count(*) AS n FROM events GROUP BY product_id ORDER BY n", "ORDER"),
        ("SELECT count(*) AS n FROM events", "needs GROUP BY"),
        ("SELECT product_id, count(*) FROM events GROUP BY product_id", "name the column"),
        ("SELECT nothing, count(*) AS n FROM events GROUP BY nothing", "nothing"),
        ("SELECT first(quantity) AS f FROM events GROUP BY product_id", "first(quantity ORDER BY"),
        ("SELECT last(quantity ORDER BY version DESC) AS f FROM events GROUP BY ALL", "use first"),
        ("SELECT approx_count_distinct(product_id) AS n FROM events GROUP BY aggregate_id",
         "approx_count_distinct"),
        ("SELECT product_id, row_number() OVER () AS n FROM events GROUP BY product_id",
         "row_number"),
        ("SELECT product_id, count(*) AS n FROM events WHERE version IN (SELECT 1)"
         " GROUP BY product_id", "subquery"),
        ("SELECT e.product_id, count(*) AS n FROM events e JOIN events f USING (version)"
         " GROUP BY ALL", "JOIN"),
        ("SELEKT 1", "SELEKT"),
    ],
)  # fmt: skip
def test_what_cannot_be_kept_live_is_one_clear_error(
    tmp_path: Path, sql: str, complaint: str
) -> None:
    domain = cart_with(tmp_path / "sql", broken=sql)
    with pytest.raises(ReadModelInvalid) as caught:
        InProcess(tmp_path, domain)
    assert "broken.sql:2: " in str(caught.value)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_new_a_changed_and_a_removed_model_are_right_after_the_next_start(tmp_path: Path) -> None:
    before = cart_with(
        tmp_path / "sql",
        kept="SELECT product_id, count(*) AS n FROM events GROUP BY product_id",
        changed="SELECT product_id, count(*) AS n FROM events GROUP BY product_id",
        removed="SELECT product_id, count(*) AS n FROM events GROUP BY product_id",
    )
    pipeline = InProcess(tmp_path, before, partitions=PARTITIONS)
    run_live(pipeline, few_carts(2), 40)
    pipeline.writer.close()

    new = "SELECT event_type, count(*) AS n FROM events GROUP BY event_type"
    changed = "SELECT product_id, sum(quantity) AS n FROM events GROUP BY product_id"
    kept = "SELECT product_id, count(*) AS n FROM events GROUP BY product_id"
    after = cart_with(tmp_path / "sql", kept=kept, changed=changed, new=new)
    pipeline = InProcess(tmp_path, after, partitions=PARTITIONS)
    published = pipeline.publish()
    assert read(published, "new")["new"] == plain(published, new)
    assert read(published, "changed")["changed"] == plain(published, changed)
    assert read(published, "kept")["kept"] == plain(published, kept)
    with pytest.raises(duckdb.CatalogException):
        read(published, "removed")
    pipeline.writer.close()


def test_a_file_that_reads_from_read_models_is_a_view_in_whatever_order(tmp_path: Path) -> None:
    domain = cart_with(
        tmp_path / "sql",
        a_top="SELECT product_id, rank() OVER (ORDER BY n DESC) AS place FROM b_counts LIMIT 3",
        b_counts="WITH c AS (FROM z_adds) SELECT product_id, n, (SELECT count(*) FROM carts) AS all"
        " FROM c WHERE n > 1",
        z_adds="SELECT product_id, count(*) AS n FROM events GROUP BY product_id",
    )
    pipeline = InProcess(tmp_path, domain, partitions=PARTITIONS)
    run_live(pipeline, few_carts(2), 30)
    published = pipeline.publish()
    rows = read(published, "a_top", "b_counts", "z_adds", "carts")
    assert sorted(place for _, place in rows["a_top"]) == [1, 2, 3]
    counted = {product: n for product, n in rows["z_adds"] if n > 1}
    assert {p: n for p, n, _ in rows["b_counts"]} == counted != {}
    assert {carts for _, _, carts in rows["b_counts"]} == {len(rows["carts"])}
    pipeline.writer.close()


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        ({"a": "FROM b", "b": "FROM c", "c": "FROM a"}, r"a\.sql: .*circle: a → b → c → a;"),
        ({"a": "FROM a"}, r"a\.sql: .*circle: a → a;"),
        ({"carts": "SELECT version, count(*) AS n FROM events GROUP BY ALL"}, "rename the file"),
        ({"events": "FROM carts"}, "rename the file"),
        ({"a": "SELECT nothing\nFROM carts"}, r"a\.sql:2: .*nothing"),
    ],
)
def test_views_that_cannot_be_are_one_clear_error(
    tmp_path: Path, files: dict[str, str], complaint: str
) -> None:
    with pytest.raises(ReadModelInvalid, match=complaint):
        InProcess(tmp_path, cart_with(tmp_path / "sql", **files))


def test_a_view_follows_what_it_reads_when_that_changes(tmp_path: Path) -> None:
    counts = "SELECT product_id, count(*) AS n FROM events GROUP BY product_id"
    before = cart_with(tmp_path / "sql", shown="FROM counts", counts=counts)
    pipeline = InProcess(tmp_path, before, partitions=PARTITIONS)
    run_live(pipeline, few_carts(2), 30)
    pipeline.writer.close()
    sums = "SELECT sum(quantity) AS units, product_id FROM events GROUP BY product_id"
    after = cart_with(tmp_path / "sql", shown="FROM counts", counts=sums)
    pipeline = InProcess(tmp_path, after, partitions=PARTITIONS)
    published = pipeline.publish()
    assert read(published, "shown")["shown"] == plain(published, sums)
    pipeline.writer.close()


def test_a_flush_that_was_missed_is_read_from_the_log(tmp_path: Path) -> None:
    pipeline = InProcess(tmp_path, partitions=1)
    add = {"type": "AddProduct", "product_id": "m", "quantity": 1, "unit_price_cents": 5}
    decided = [
        pipeline.decide(0, [entry(i, {**add, "command_id": str(i), "cart_id": "7"})])
        for i in range(4)
    ]
    pipeline.flush([decided[0]])
    pipeline.flush([decided[3]])
    pipeline.flush([decided[1], decided[2]])  # too late, and harmless
    rows = read(pipeline.publish(), "carts", "cart_items")
    assert [row[2] for row in rows["carts"]] == [4]
    assert [row[2] for row in rows["cart_items"]] == [4]
    pipeline.writer.close()


def test_a_file_that_is_no_database_is_set_aside_and_built_again(tmp_path: Path) -> None:
    pipeline = InProcess(tmp_path, partitions=PARTITIONS)
    run_live(pipeline, few_carts(3), 50)
    live = read(pipeline.publish(), "carts", "product_daily")
    pipeline.writer.close()
    (tmp_path / "writer.duckdb").write_bytes(b"garbage" * 1000)
    pipeline.restart()
    assert read(pipeline.publish(), "carts", "product_daily") == live
    assert len(list(tmp_path.glob("writer.broken-*"))) == 1
    pipeline.writer.close()


def test_read_models_that_hold_more_than_the_log_are_built_again(tmp_path: Path) -> None:
    pipeline = InProcess(tmp_path, partitions=PARTITIONS)
    commands = few_carts(6)
    run_live(pipeline, commands[:60], 20)
    as_it_was = read(pipeline.publish(), "carts", "product_daily")
    backed_up = {file.path for p in range(PARTITIONS) for file in pipeline.log.files(p)}
    run_live(pipeline, [(p, {**c, "command_id": f"x{c['command_id']}"}) for p, c in commands], 60)
    pipeline.writer.close()
    for path in set(pipeline.log.folder.rglob("*.parquet")) - backed_up:
        path.unlink()
    pipeline.restart()
    assert read(pipeline.publish(), "carts", "product_daily") == as_it_was
    pipeline.writer.close()


def test_a_reader_keeps_its_moment_while_the_next_one_is_published(tmp_path: Path) -> None:
    pipeline = InProcess(tmp_path, partitions=PARTITIONS)
    commands = few_carts(4)
    run_live(pipeline, commands[:60], 30)
    published = pipeline.publish()
    with duckdb.connect(str(published), read_only=True) as db:
        before = sorted_rows(db, "FROM product_daily")
        events = sorted_rows(db, "FROM events")
        run_live(
            pipeline, [(p, {**c, "command_id": "x" + c["command_id"]}) for p, c in commands], 60
        )
        pipeline.publish()
        assert sorted_rows(db, "FROM product_daily") == before
        assert sorted_rows(db, "FROM events") == events
    assert read(published, "product_daily")["product_daily"] != before
    pipeline.writer.close()


def test_descriptions_are_in_the_catalog(tmp_path: Path) -> None:
    pipeline = InProcess(tmp_path)
    with duckdb.connect(str(pipeline.publish()), read_only=True) as db:
        comments = dict(db.execute("SELECT view_name, comment FROM duckdb_views()").fetchall())
    assert comments["cart_items"].startswith("What is in each cart now")
    assert comments["carts"] == "The state of each cart: one row a cart_id."
    pipeline.writer.close()


def test_a_domain_has_the_sql_files_that_it_names_whatever_it_is_called(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    alone = replace(carts, read_models=None)
    assert [model.name for model in read_models(alone)] == ["carts"]
    with caplog.at_level(logging.INFO, "foldlog"):
        InProcess(tmp_path, alone).writer.close()
    assert "no read models but carts: no .sql files in the domain" in caplog.text
    with pytest.raises(ReadModelInvalid, match="there is no such package"):
        read_models(replace(shop, read_models="nowhere.sql"))


@pytest.mark.parametrize("name", ["events", "Rejections", "outcomes"])
def test_a_table_that_has_the_name_of_a_relation_is_told_at_the_start(
    tmp_path: Path, name: str
) -> None:
    taken = replace(bank, aggregates=(replace(bank.aggregates[0], table=name),))
    with pytest.raises(ReadModelInvalid, match=f"relation named {name}; name the table other"):
        InProcess(tmp_path, taken)


def test_what_was_tried_is_not_tried_again_and_nothing_else_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []
    monkeypatch.setattr(Trial, "check", lambda _, select, live: tried.append(select.name))
    counts = "SELECT product_id, count(*) AS n FROM events GROUP BY product_id"
    domain = cart_with(tmp_path / "sql", a=counts, b=counts)
    pipeline = InProcess(tmp_path, domain)

    def tried_at_the_next_start(domain: Domain) -> list[str]:
        """In a process that has tried nothing yet."""
        monkeypatch.setattr(declarations, "_known", set())
        monkeypatch.setattr(declarations, "_made", None)
        tried.clear()
        pipeline.domain = domain
        pipeline.restart()
        return sorted(tried)

    assert tried_at_the_next_start(domain) == []
    changed = cart_with(
        tmp_path / "sql", a=counts, b=counts.replace("count(*)", "max(quantity)"), c=counts
    )
    assert tried_at_the_next_start(changed) == ["b", "c"]
    assert tried_at_the_next_start(changed) == []
    monkeypatch.setattr(declarations, "_code", lambda: ("another DuckDB", ""))
    assert tried_at_the_next_start(changed) == ["a", "b", "c"]
    pipeline.writer.checkpoint()
    pipeline.writer.close()
    with duckdb.connect(str(tmp_path / "writer.duckdb")) as db:
        db.execute("DROP TABLE live.trials")  # as a file of before is
    assert tried_at_the_next_start(changed) == ["a", "b", "c"]
    pipeline.writer.close()
