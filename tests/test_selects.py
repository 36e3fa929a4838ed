"""One declaration, two ways, the same rows: any SELECT, any log, any cut, any restart."""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Iterator
from functools import lru_cache
from itertools import count, groupby
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from ingest.domain import Domain
from ingest.errors import ReadModelInvalid
from ingest.shop import shop
from projections.functions import is_constant
from projections.model import Select
from projections.relations import definitions
from projections.session import session
from projections.syntax import Syntax, relations_in
from projections.tables import Tables
from tests.models import PARTITIONS, cart_with, few_carts
from tests.more import examples
from tests.running import InProcess, entry
from tests.selects import Both, selects

OF_THE_DATA = (duckdb.ConversionException, duckdb.OutOfRangeException, duckdb.InvalidInputException)
"""What a value can do wrong, live as in DuckDB itself."""

quietly = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]


@lru_cache(maxsize=10)
def log_of(seed: int) -> pa.Table:
    """The rows of a log: accepted, rejected and unreadable commands of some carts."""
    with tempfile.TemporaryDirectory() as name:
        pipeline = InProcess(Path(name), cart_with(Path(name) / "sql"), partitions=PARTITIONS)
        for number, (partition, command) in enumerate(few_carts(seed, 80)):
            pipeline.decide(partition, [entry(number, command)])
        rows = pipeline.rows()
        pipeline.writer.close()
        return rows


def comparable(value: Any) -> Any:
    """A value that equals another of its kind that differs in the last digits only."""
    if isinstance(value, float):
        return float(f"{value:.9g}")
    if isinstance(value, list | tuple):
        return [comparable(one) for one in value]
    if isinstance(value, dict):
        return {key: comparable(one) for key, one in value.items()}
    return value


def rows_of(db: duckdb.DuckDBPyConnection, sql: str) -> list[str]:
    """Names, types and rows of a query, in an order of their own."""
    result = db.execute(sql)
    head = repr([(name, str(kind)) for name, kind, *_ in result.description or []])
    return [head, *sorted(repr(comparable(row)) for row in result.fetchall())]


def asked(rows: pa.Table, sql: str) -> list[str] | duckdb.Error:
    """What DuckDB itself says of a SELECT over all rows."""
    with duckdb.connect() as db:
        db.execute("SET TimeZone = 'UTC'")
        db.register("rows", rows)
        db.execute("CREATE TABLE log AS FROM rows")
        for name, relation in definitions(shop.schema).items():
            db.execute(f"CREATE VIEW {name} AS {relation}")
        try:
            return rows_of(db, sql)
        except duckdb.Error as error:
            return error


def kept(rows: pa.Table, domain: Domain, sizes: list[int]) -> list[str]:
    """The rows of the domain's one SELECT, after batches of so many commands."""
    with session() as db:
        tables = Tables(db, domain)
        tables.prepare(PARTITIONS)
        (model,) = (m for m in tables.stored if isinstance(m, Select))
        tables.create(model)
        for batch in batches(rows, sizes):
            with tables.seen(batch_rows=batch):
                tables.apply([model], "SELECT * FROM batch_rows", {})
        db.execute(f"CREATE VIEW shown AS {tables._declared.live[model.name].view}")
        return rows_of(db, "FROM shown")


def batches(rows: pa.Table, sizes: list[int]) -> Iterator[pa.Table]:
    """Cut into whole commands, the partitions by turns."""
    waiting = [
        rows.filter(pc.equal(rows["partition"], number)).to_pylist() for number in range(PARTITIONS)
    ]
    for turn in count():
        if not any(waiting):
            return
        left = waiting[turn % PARTITIONS]
        commands = [list(g) for _, g in groupby(left, lambda row: row["stream_id"])]
        size = sizes[turn] if turn < len(sizes) else len(commands)
        taken = [row for command in commands[:size] for row in command]
        waiting[turn % PARTITIONS] = left[len(taken) :]
        if taken:
            yield pa.Table.from_pylist(taken, rows.schema)


@examples(6, suppress_health_check=quietly, derandomize=True)
@given(
    st.lists(selects(), min_size=2, max_size=2),
    st.lists(selects(unfit=False), min_size=2, max_size=2),
    st.integers(0, 4),
    st.lists(st.integers(0, 12), max_size=8),
)
def test_any_select_is_refused_with_its_line_or_its_live_rows_are_those_that_duckdb_gives(
    odd: list[Both], fit: list[Both], seed: int, sizes: list[int]
) -> None:
    with tempfile.TemporaryDirectory() as name:
        for select in odd:
            check(select, seed, sizes, Path(name))
        for select in fit:
            check(select, seed, sizes, Path(name), fit=True)


def check(select: Both, seed: int, sizes: list[int], folder: Path, fit: bool = False) -> None:
    """`fit`: it is known to be one that can be kept live."""
    direct = asked(log_of(seed), select.direct)
    note = f"{select.live}\n{select.direct}\n{direct}"
    try:
        live: object = kept(log_of(seed), cart_with(folder, m=select.live), sizes)
    except (ReadModelInvalid, duckdb.Error) as error:
        live = error
    if isinstance(live, ReadModelInvalid):
        assert re.search(r"/m\.sql:\d+: [^\n]+$", str(live)), note
        assert isinstance(direct, duckdb.Error) or not fit, note
    elif not isinstance(direct, OF_THE_DATA):
        assert live == direct, note


@examples(2, suppress_health_check=quietly, derandomize=True)
@given(
    st.lists(selects(unfit=False), min_size=5, max_size=9),
    st.integers(0, 4),
    st.lists(
        st.tuples(st.integers(0, PARTITIONS - 1), st.integers(1, 20), st.booleans(), st.booleans()),
        max_size=10,
    ),
)
def test_whatever_is_cut_and_restarted_the_rows_are_those_of_the_select_over_all_events(
    generated: list[Both], seed: int, cuts: list[tuple[int, int, bool, bool]]
) -> None:
    """`cuts`: of which partition, how many commands; is it flushed, or left for the next start."""
    direct = [(select, asked(log_of(seed), select.direct)) for select in generated]
    known = {f"m{i}": pair for i, pair in enumerate(direct) if isinstance(pair[1], list)}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        domain = cart_with(folder / "sql", **{m: select.live for m, (select, _) in known.items()})
        pipeline = InProcess(folder, domain, partitions=PARTITIONS)
        waiting: list[list[Any]] = [[] for _ in range(PARTITIONS)]
        for number, (partition, command) in enumerate(few_carts(seed, 80)):
            waiting[partition].append(entry(number, command))
        for partition, size, flushed, restarted in cuts:
            batch, waiting[partition] = waiting[partition][:size], waiting[partition][size:]
            decided = pipeline.decide(partition, batch)
            if flushed:
                pipeline.flush([decided])
            if restarted:
                pipeline.restart()
        pipeline.flush([pipeline.decide(p, left) for p, left in enumerate(waiting)])
        with duckdb.connect(str(pipeline.publish()), read_only=True) as db:
            for model, (select, rows) in known.items():
                assert rows_of(db, f"FROM {model}") == rows, select
        pipeline.writer.close()


SHADOWED = [
    "SELECT lower(product_id) AS product_id, count(*) AS n FROM events GROUP BY product_id",
    "SELECT left(event_type, 7) AS event_type, count(*) AS n FROM events GROUP BY event_type",
    "SELECT left(event_type, 7) AS event_type, count(*) AS n FROM events GROUP BY ALL",
    "SELECT lower(event_type) AS event_type, count(*) AS n FROM events GROUP BY 1"
    " HAVING event_type LIKE 'p%'",
    "SELECT occurred_at::DATE AS occurred_at, count(*) AS n FROM events GROUP BY occurred_at",
    "SELECT last_day(occurred_at) AS occurred_at, max(version) AS m FROM events"
    " GROUP BY occurred_at, product_id",
    "SELECT product_id, sum(quantity) AS version, max(version) AS m FROM events GROUP BY product_id"
    " HAVING version > 5",
    "SELECT version, sum(quantity) AS quantity FROM events GROUP BY version, quantity"
    " HAVING quantity > 1",
    "SELECT product_id, count(*) AS n, max(quantity) AS c0 FROM events GROUP BY product_id"
    " HAVING c0 > 2",
    "SELECT version % 2 AS k1, product_id AS k0, count(*) AS n FROM events GROUP BY 1, 2"
    " HAVING k0 < 'n' AND k1 = 1",
    "SELECT e.product_id, max(e.version) AS v FROM events e GROUP BY e.product_id",
    "SELECT E.product_id AS p, count(*) AS n FROM events e GROUP BY product_id",
    "SELECT events.product_id, count(*) AS n FROM events GROUP BY ALL",
    "SELECT PRODUCT_ID, Count(*) AS N FROM Events GROUP BY product_id HAVING n > 1",
    'SELECT "Product_Id", count(*) AS n FROM events GROUP BY ALL',
    "SELECT product_id, sum(quantity) AS s, s + 1 AS t, t * 2 AS u FROM events GROUP BY product_id",
    "SELECT product_id AS p, p || '!' AS q, count(*) AS n FROM events WHERE p <> 'b' GROUP BY ALL",
    "SELECT product_id, avg(quantity::DECIMAL(9, 3)) AS mean FROM events GROUP BY product_id",
    "SELECT product_id, list_transform([max(version)], lambda v: v + count(*))[1] AS l"
    " FROM events GROUP BY product_id",
    "FROM events SELECT event_type, count(*) AS n GROUP BY event_type;  -- the end",
]


@pytest.mark.parametrize("sql", SHADOWED)
def test_a_name_stands_for_what_it_stands_for_in_duckdb(tmp_path: Path, sql: str) -> None:
    direct = asked(log_of(0), sql)
    assert isinstance(direct, list), direct
    assert len(direct) > 1
    assert kept(log_of(0), cart_with(tmp_path, m=sql), [3, 1, 9, 2, 20, 5]) == direct


@pytest.mark.parametrize(
    ("sql", "complaint"),
    [
        *[
            (f"SELECT product_id, {one} AS x FROM events GROUP BY ALL", one.partition("(")[0])
            for one in (
                *("now()", "random()", "uuid()", "current_date", "CURRENT_TIMESTAMP", "today()"),
                *("localtime", "localtimestamp", "transaction_timestamp()", "txid_current()"),
                *("current_setting('TimeZone')", "getvariable('v')", "version()", "current_user"),
                *("age(max(occurred_at))", "ago(1)", "current_database()", "pg_conf_load_time()"),
                *("gen_random_uuid()", "get_current_time()", "unnest([1])", "events", "geomean(1)"),
            )
        ],
        ("SELECT 1 AS x FROM events WHERE occurred_at < now() GROUP BY product_id", "now"),
        ("SELECT 1 AS x FROM events GROUP BY product_id HAVING random() > 2", "random"),
        ("SELECT sum(quantity) FILTER (random() > 2) AS x FROM events GROUP BY ALL", "random"),
        ("SELECT product_id FROM events GROUP BY product_id USING SAMPLE 3", "SAMPLE"),
        ("SELECT product_id FROM events TABLESAMPLE 50% GROUP BY product_id", "TABLESAMPLE"),
        ("SELECT range AS r FROM range(3) GROUP BY range", "reads FROM events"),
        ("SELECT content FROM read_text('/etc/hostname') GROUP BY ALL", "reads FROM events"),
        ("SELECT p FROM events e(p) GROUP BY p", "reads FROM events"),
        ("SELECT product_id FROM (FROM events) GROUP BY product_id", "subquery"),
        ("SELECT a FROM (VALUES (1)) v(a) GROUP BY a", "subquery"),
        ("SELECT product_id, avg(occurred_at) AS m FROM events GROUP BY product_id", "avg"),
        ("SELECT product_id, avg(occurred_at - recorded_at) AS m FROM events GROUP BY ALL", "avg"),
        ("SELECT count(*) AS n FROM events GROUP BY ALL", "a column to group by"),
        ("SELECT count(*) AS n, 'x' AS x FROM events GROUP BY ALL", "a column to group by"),
        ("SELECT count(*) AS n FROM events GROUP BY ()", "GROUP BY"),
        ("SELECT product_id FROM events GROUP BY ROLLUP (product_id)", "grouping sets"),
        ("SELECT product_id COLLATE NOCASE AS p FROM events GROUP BY ALL", "COLLATE"),
        ("SELECT sum(quantity ORDER BY version) AS s FROM events GROUP BY product_id", "sum"),
        ("SELECT max(product_id, 2) AS s FROM events GROUP BY product_id", "max"),
        ("SELECT list_filter([version], lambda quantity, i: quantity > i) AS l FROM events"
         " GROUP BY ALL", "lambda's quantity"),
        ("SELECT product_id.upper() AS p FROM events GROUP BY ALL", "after a dot"),
        ("SELECT product_id, (max(occurred_at) AT TIME ZONE 'UTC')::DATE AS d FROM events"
         " GROUP BY ALL",
         "time zone"),
        ("SELECT product_id FROM events GROUP BY product_id; SELECT 1", "2 statements"),
        ("SELECT product_id FROM events GROUP BY product_id UNION SELECT 'x'", "UNION"),
        ("CREATE TABLE x (a INTEGER)", "one SELECT"),
        ("WITH e AS (FROM events) SELECT product_id FROM events GROUP BY product_id", "WITH"),
    ],
)  # fmt: skip
def test_what_depends_on_more_than_the_events_or_does_not_merge_is_refused(
    tmp_path: Path, sql: str, complaint: str
) -> None:
    with session() as db, pytest.raises(ReadModelInvalid) as caught:
        Tables(db, cart_with(tmp_path, m=sql))
    assert "/m.sql:2: " in str(caught.value)
    assert complaint.lower() in str(caught.value).lower()
    assert "\n" not in str(caught.value)


def test_a_function_that_may_be_called_without_arguments_says_the_same_in_any_session() -> None:
    """So that what the catalogue calls constant, and is not, is found with a new DuckDB."""
    with duckdb.connect() as db, duckdb.connect() as other:
        other.execute("SET TimeZone = 'Asia/Tokyo'; CREATE SCHEMA s; USE s")
        syntax = Syntax(db)
        names = db.execute(
            "SELECT DISTINCT function_name FROM duckdb_functions()"
            " WHERE function_type IN ('scalar', 'macro') AND len(parameters) = 0"
        ).fetchall()
        constant = []
        for (name,) in names:
            call = f'"{name}"()'
            if is_constant(syntax, syntax.expression(call)):
                constant.append(name)
                with contextlib.suppress(duckdb.BinderException, duckdb.InvalidInputException):
                    answers = [one.execute(f"SELECT {call}").fetchall() for one in (db, other)]
                    assert answers[0] == answers[1], call
        assert {"pi"} <= set(constant)


@pytest.mark.parametrize(
    ("sql", "read"),
    [
        ("FROM Carts;", {"carts"}),
        ('SELECT * FROM "a""b" JOIN main.items USING (x), LATERAL (FROM c)', {'a"b', "items", "c"}),
        ("SELECT (SELECT max(x) FROM a) FROM b WHERE EXISTS (FROM c)", {"a", "b", "c"}),
        ("WITH x AS (FROM carts) SELECT * FROM x WHERE y = $y", {"carts"}),
        ("WITH x AS (FROM carts), y AS (FROM x) FROM y UNION ALL FROM items", {"carts", "items"}),
        ("WITH carts AS (FROM carts) FROM carts", {"carts"}),
        ("WITH carts AS (FROM events) FROM carts, main.items", {"events", "items"}),
        ("FROM (WITH x AS (FROM a) FROM x), x", {"a", "x"}),
        ("WITH RECURSIVE r AS (SELECT 1 AS n UNION SELECT n FROM r, a) FROM r", {"a"}),
        ("FROM a; FROM b", {"a", "b"}),
        ("DESCRIBE carts", {"carts"}),
        ("VALUES (1)", set()),
        ("SELECT FROM", None),
        ("DROP TABLE carts", None),
    ],
)
def test_what_a_query_reads_is_what_duckdb_reads_it_from(sql: str, read: set[str] | None) -> None:
    with session() as db:
        assert relations_in(db, sql) == read
