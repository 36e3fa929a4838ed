"""SELECTs, drawn from DuckDB's grammar and its own catalogue of functions, for tests.

Each is a pair of texts: what stands in a .sql file, and how DuckDB is asked for the same. They
differ where SQL leaves the answer open: there the second says what read models settle.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import duckdb
from hypothesis import strategies as st


class Both(NamedTuple):
    live: str
    direct: str

    def __str__(self) -> str:
        raise TypeError("use fill()")


def same(sql: str) -> Both:
    return Both(sql, sql)


def fill(template: str, **parts: Both) -> Both:
    """Both texts of a template, with its {names} filled in."""
    return Both(
        template.format(**{name: part.live for name, part in parts.items()}),
        template.format(**{name: part.direct for name, part in parts.items()}),
    )


COLUMNS = {
    "events": {
        "text": ["product_id", "event_type", "aggregate_id", "command_id"],
        "number": ["quantity", "unit_price_cents", "value_cents", "version", "position"],
        "time": ["occurred_at", "recorded_at"],
    },
    "rejections": {
        "text": ["reason", "event_type", "aggregate_id"],
        "number": ["position", "partition"],
        "time": ["occurred_at", "recorded_at"],
    },
    "outcomes": {
        "text": ["outcome", "reason", "command_id"],
        "number": ["first_position", "last_position"],
        "time": ["recorded_at"],
    },
}
TIES = {
    "events": "recorded_at, partition, position",
    "rejections": "recorded_at, partition, position",
    "outcomes": "recorded_at, partition, last_position",
}

SOURCES = [
    *[("{r}", "{r}")] * 6,
    ("{r} e", "e"),
    ('{r} AS "E"', "E"),
    ("main.{r}", "{r}"),
]
"""FROM, and the table's name in it."""

FORBIDDEN_SOURCES = [
    "{r} e, {r} f",
    "(SELECT * FROM {r}) s",
    "{r} TABLESAMPLE 50%",
    "{r} USING SAMPLE 3",
    "{r} t(a, b)",
    "range(3) t(quantity)",
    "(VALUES (1, 'm')) v(quantity, product_id)",
    "read_text('/etc/hostname')",
    "duckdb_settings()",
]

EXPRESSIONS = {
    "text": [
        *["upper({text})", "lower({text})", "{text} || '!'", "coalesce({text}, 'none')"],
        *["CASE WHEN {flag} THEN {text} ELSE 'no' END", "CASE {text} WHEN 'm' THEN 'M' END"],
        *["({number})::VARCHAR", "CAST({time} AS VARCHAR)", "strftime({time}, '%Y-%m')"],
        *["left({text}, 1)", "substring({text} FROM 1 FOR 2)", "nullif({text}, 'm')"],
        *["[{text}, 'x'][1]", "{{'a': {text}}}.a", "concat({text}, {number})", "{text}[1]"],
        *["if({flag}, {text}, 'other')", "replace({text}, 'm', 'M')", "dayname({time})"],
        "to_json({{'a': {text}}})->>'$.a'",
    ],
    "number": [
        *["{number} + 1", "{number} * {number} - 1", "{number} % 3", "-{number}", "{number} // 2"],
        *["abs({number})", "length({text})", "coalesce({number}, 0)", "greatest({number}, 2)"],
        *["CASE WHEN {flag} THEN {number} END", "extract(month FROM {time})", "year({time})"],
        *["date_diff('day', {time}, {time})", "({flag})::INTEGER", "ifnull({number}, -1)"],
        *["[{number}, 1][1]", "len([{text}])", "list_sum([{number}, {number}])"],
        *["list_transform([{number}], lambda each: each + 1)[1]", "nullif({number}, 2)"],
        *["list_filter([{number}, 3], lambda each: each > 1)[1]", "TRY_CAST({text} AS INT)"],
        *["[y + 1 FOR y IN [{number}, 2] IF y > 1][1]", "({number} & 3)", "hash({text}) % 7"],
    ],
    "time": [
        *["date_trunc('month', {time})", "{time} + INTERVAL 1 DAY", "({time})::DATE::TIMESTAMP"],
        *["time_bucket(INTERVAL '6 hours', {time})", "CASE WHEN {flag} THEN {time} END"],
        *["{time} AT TIME ZONE 'UTC' AT TIME ZONE 'Europe/Berlin'", "least({time}, {time})"],
        "make_timestamp(epoch_us({time}))",
    ],
    "flag": [
        *["{number} > 1", "{number} BETWEEN 1 AND 3", "{number} IN (1, 2, 5)", "NOT ({flag})"],
        *[
            "{text} = 'm'",
            "{text} LIKE 'P%'",
            "{text} ILIKE 'M'",
            "{text} IS NULL",
            "{text} ~ 'm|b'",
        ],
        *["{text} IN ('m', 'ProductAdded')", "{text} IS DISTINCT FROM 'm'", "{text} NOT LIKE 'P%'"],
        *["({flag}) AND ({flag})", "({flag}) OR ({flag})", "{time} > TIMESTAMP '2017-01-04'"],
        *["{number} NOT BETWEEN 2 AND 4", "({flag}) IS NOT TRUE", "contains({text}, 'P')"],
    ],
}

UNFIT = [
    *["now()", "random()", "uuid()", "current_date", "current_timestamp", "today()", "localtime"],
    *[
        "age({time})",
        "current_setting('TimeZone')",
        "getvariable('x')",
        "nextval('s')",
        "version()",
    ],
    *["sum({number}) OVER ()", "row_number() OVER ()", "(SELECT max(quantity) FROM events)"],
    *["{number} IN (SELECT 1)", "unnest([{number}])", "{text} COLLATE NOCASE", "COLUMNS(*)", "*"],
    *["median({number})", "count(DISTINCT {text})", "list({text})", "string_agg({text}, ',')"],
    *["sum({number} ORDER BY {time})", "geomean({number})", "avg({time})", "max({number}, 2)"],
    *["arg_min({text}, {number}, 2)", "last({text} ORDER BY {time} DESC)", "first({text})"],
    *["grouping({text})", "approx_count_distinct({text})", "#1", "$1", "events", "rowid"],
    *["list_filter([{number}], lambda quantity: quantity > 1)", "upper({text}).lower()"],
    *[
        "pg_typeof({text})",
        "txid_current()",
        "current_user",
        "error({text})",
        "generate_series(1, 2)",
    ],
]

UNFIT_TAILS = ["ORDER BY 1", "LIMIT 3", "OFFSET 1", "QUALIFY count(*) > 1", "USING SAMPLE 2"]

MERGED = {
    "text": ["min({text})", "max({text})"],
    "number": [
        *["sum({number})", "count({text})", "count({number})", "count(*)", "min({number})"],
        *["max({number})", "bit_and({number})", "bit_or({number})", "bit_xor({number})"],
    ],
    "time": ["min({time})", "max({time})"],
    "flag": ["bool_and({flag})", "bool_or({flag})", "max({flag})"],
    "other": [
        *["avg({number})", "histogram({text})", "histogram({number})", "sum({number}) / count(*)"],
        *["max([{number}, {number}])", "min({{'n': {number}, 't': {text}}})", "mean({number})"],
        *["sum({number}::DECIMAL(12, 3))", "avg({number}::DECIMAL(18, 2))", "max({time} - {time})"],
        "max(({time})::TIME)",
    ],
}

CALLABLE = {
    "VARCHAR": "{text}",
    "BIGINT": "{number}",
    "HUGEINT": "{number}",
    "INTEGER": "({number})::INTEGER",
    "DOUBLE": "({number})::DOUBLE",
    "BOOLEAN": "({flag})",
    "TIMESTAMP": "{time}",
    "TIMESTAMP WITH TIME ZONE": "({time} AT TIME ZONE 'UTC')",
    "DATE": "({time})::DATE",
    "TIME": "({time})::TIME",
    "INTERVAL": "INTERVAL 36 HOURS",
    "BLOB": "encode({text})",
    "VARCHAR[]": "[{text}, 'x']",
    "BIGINT[]": "[{number}, 2]",
    "T[]": "[{number}, 2]",
    "ANY": "{text}",
    "T": "{number}",
}
"""DuckDB's parameter types that something can be given for."""

HARMFUL = ("write_log", "sleep_ms", "setseed", "repeat", "range", "generate_series")


@lru_cache(maxsize=1)
def catalogue() -> list[str]:
    """A call of every scalar function and aggregate of this DuckDB that takes what there is."""
    with duckdb.connect() as db:
        found = db.execute(
            "SELECT DISTINCT function_name, parameter_types FROM duckdb_functions()"
            " WHERE function_type IN ('scalar', 'aggregate', 'macro')"
            " AND regexp_matches(function_name, '^[a-z_0-9]+$') AND function_name NOT LIKE 'icu_%'"
        ).fetchall()
    calls = {
        f"{name}({', '.join(CALLABLE[str(t or 'ANY')] for t in types)})"
        for name, types in found
        if name not in HARMFUL and all(str(t or "ANY") in CALLABLE for t in types)
    }
    return sorted(calls)


@st.composite
def columns(draw: Any, relation: str, kind: str, table: str) -> Both:
    """A column, as one may write it."""
    name = draw(st.sampled_from(COLUMNS[relation][kind]))
    return same(
        draw(
            st.sampled_from(
                [*[name] * 5, name.upper(), f'"{name}"', f"{table}.{name}", f'"{table}".{name}']
            )
        )
    )


@st.composite
def made(draw: Any, template: str, atoms: Any, depth: int) -> Both:
    """A template, filled with expressions of at most that depth over what `atoms` gives."""
    kinds = [kind for kind in EXPRESSIONS if f"{{{kind}}}" in template]
    return fill(template, **{kind: draw(expressions(kind, atoms, depth)) for kind in kinds})


@st.composite
def expressions(draw: Any, kind: str, atoms: Any, depth: int) -> Both:
    if kind != "flag" and (depth == 0 or draw(st.booleans())):
        return draw(atoms(kind))
    return draw(made(draw(st.sampled_from(EXPRESSIONS[kind])), atoms, max(0, depth - 1)))


@st.composite
def aggregates(draw: Any, relation: str, kind: str, over: Any) -> Both:
    """A merging aggregate, with FILTER or without, over columns."""
    filtered = draw(st.integers(0, 3)) == 0
    condition = draw(expressions("flag", over, 1)) if filtered else None
    picked = kind in ("text", "number", "time") and draw(st.integers(0, 2)) == 0
    if not picked:
        call = draw(made(draw(st.sampled_from(MERGED[kind])), over, 1))
        if condition is None or "/" in call.live:
            return call
        return fill("{call} FILTER (WHERE {condition})", call=call, condition=condition)
    value = draw(expressions(kind, over, 1))
    order = draw(expressions(draw(st.sampled_from(["time", "number"])), over, 0))
    name = draw(st.sampled_from(["any_value", "first", "last", "arg_min", "max_by", "arg_max"]))
    met = condition.direct if condition else "true"
    ties = TIES[relation]
    known = f"({value.direct}) IS NOT NULL AND ({order.direct}) IS NOT NULL"
    if name == "any_value":
        live, direct = f"any_value({value.live})", f"min({value.direct}) FILTER ({met})"
    elif name in ("first", "last"):
        live = f"{name}({value.live} ORDER BY {order.live})"
        direct = f"{name}({value.direct} ORDER BY {order.direct}, {ties}) FILTER ({met})"
    else:
        end = "first" if name == "arg_min" else "last"
        live = f"{name}({value.live}, {order.live})"
        direct = (
            f"{end}({value.direct} ORDER BY {order.direct}, {ties}) FILTER (({met}) AND {known})"
        )
    return Both(live + (f" FILTER (WHERE {condition.live})" if condition else ""), direct)


NAMES = ["k0", "k1", "c0", "c1", "day", "n", "Total", "a name", "z", "select"]


def quoted(name: str) -> str:
    return f'"{name}"' if name in ("a name", "select") or name != name.lower() else name


@st.composite
def selects(draw: Any, unfit: bool = True) -> Both:
    """One SELECT. With `unfit`, also what can never be kept live."""
    relation = draw(st.sampled_from([*["events"] * 4, "rejections", "outcomes"]))
    source, table = draw(st.sampled_from(SOURCES))
    source, table = source.format(r=relation), table.format(r=relation)
    odd = draw(st.sampled_from(["source", "tail", "body", "body", "body"])) if unfit else ""
    if odd == "source":
        source = draw(st.sampled_from(FORBIDDEN_SOURCES)).format(r=relation)

    def over(kind: str) -> Any:
        return columns(relation, kind, table)

    shadowing = [name for names in COLUMNS[relation].values() for name in names]
    count = draw(st.integers(2, 5))
    names = draw(
        st.lists(
            st.sampled_from([*NAMES * 2, *shadowing]), min_size=count, max_size=count, unique=True
        )
    )
    key_count = draw(st.integers(1, min(3, count)))
    seen: list[Both] = []  # keys, as they are written and by their names

    def outer(kind: str) -> Any:
        known = [aggregates(relation, kind, over)]
        named = [draw_seen for draw_seen, of in before if of == kind]
        return st.one_of(*known * 2, *(st.just(one) for one in named))

    items: list[tuple[Both, str]] = []
    before: list[tuple[Both, str]] = []
    for name in names[:key_count]:
        kind = draw(st.sampled_from(["text", "number", "time", "flag"]))
        body = draw(expressions(kind, over, draw(st.integers(0, 2))))
        items.append((body, name))
        before.append((draw(st.sampled_from([body, same(quoted(name))])), kind))
        seen.append(body)
    for name in names[key_count:]:
        kind = draw(st.sampled_from(["text", "number", "time", "flag", "other"]))
        if kind == "other":
            body = draw(aggregates(relation, kind, over))
        else:
            body = draw(expressions(kind, outer, draw(st.integers(0, 2))))
        if odd == "body" and draw(st.booleans()):
            wild = draw(st.one_of(st.sampled_from(UNFIT), st.sampled_from(catalogue())))
            body = draw(made(wild, draw(st.sampled_from([over, outer])), 0))
        items.append((body, name))
        before.append((same(quoted(name)), kind))

    shown = [fill("{body} AS {name}", body=b, name=same(quoted(n))) for b, n in items]
    where = draw(st.one_of(st.none(), expressions("flag", over, 1)))
    having = draw(st.one_of(st.none(), expressions("flag", outer, 0)))
    style = draw(st.sampled_from(["text", "text", "name", "number", "ALL", "mixed"]))
    if style == "ALL":
        groups = [same("ALL")]
        if duckdb.__version__ < "2":
            having = None  # an output's name there makes 1.5 group by what is in it as well
    else:
        groups = []
        for at, body in enumerate(seen):
            how = draw(st.sampled_from(["text", "name", "number"])) if style == "mixed" else style
            written = {"name": quoted(names[at]), "number": str(at + 1)}.get(how)
            groups.append(same(written) if written else body)
    tail = draw(st.sampled_from(UNFIT_TAILS)) if odd == "tail" else ""
    both = []
    for side in (0, 1):
        text = f"SELECT {', '.join(s[side] for s in shown)} FROM {source}"
        text += f" WHERE {where[side]}" if where else ""
        text += f" GROUP BY {', '.join(g[side] for g in groups)}"
        text += f" HAVING {having[side]}" if having else ""
        both.append(f"{text} {tail}".rstrip())
    return Both(*both)
