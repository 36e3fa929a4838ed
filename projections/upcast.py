"""Old events, seen as the code of today would have written them: for SQL and for the fold alike.

An upcast is declared in SQL, from one schema version to the next, so that DuckDB over the files and
the fold of an aggregate read the same. A field that is new and has a default needs no upcast.
"""

from __future__ import annotations

from dataclasses import MISSING, fields

import duckdb
import pyarrow as pa

from ingest.domain import Domain
from ingest.schema import optional
from projections.relations import LogFiles, Positions, named, quoted, rows_between


def current_rows(domain: Domain, log: LogFiles, since: Positions, until: Positions) -> str:
    """SQL for the log's rows from `since` up to but not including `until`, seen as of today."""
    return upcast(domain, rows_between(log, domain.stored_schema, since, until))


def upcast(domain: Domain, rows: str) -> str:
    """SQL for the rows of the SELECT `rows`, which has the columns of `domain.stored_schema`."""
    defaults = _defaults(domain)
    if not defaults and not domain.upcasts:
        return rows
    for version in sorted({u.from_version for u in domain.upcasts}):
        steps = [u for u in domain.upcasts if u.from_version == version]
        cases: dict[str, str] = {}
        for step in steps:
            raised = {**step.columns, "schema_version": str(version + 1)}
            for column, sql in raised.items():
                condition = f"event_type = {quoted(step.event_type)} AND schema_version = {version}"
                cases[column] = f"{cases.get(column, '')} WHEN {condition} THEN {sql}"
        replaced = ", ".join(_case(column, sql) for column, sql in cases.items())
        rows = f"SELECT * REPLACE ({replaced}) FROM ({rows})"
    shown = [_case(c, defaults[c]) if c in defaults else named(c) for c in domain.schema.names]
    return f"SELECT {', '.join(shown)} FROM ({rows})"


def upcast_table(domain: Domain, rows: pa.Table) -> pa.Table:
    """The same for rows in memory, in their order."""
    for field in domain.stored_schema:
        if field.name not in rows.schema.names:
            rows = rows.append_column(field, pa.nulls(len(rows), field.type))
    with duckdb.connect() as db:
        db.register("old", rows)
        return db.sql(upcast(domain, "SELECT * FROM old")).to_arrow_table()


def _case(column: str, cases: str) -> str:
    return f"CASE{cases} ELSE {named(column)} END AS {named(column)}"


def _defaults(domain: Domain) -> dict[str, str]:
    """Column → the cases in which NULL stands for a default, and cannot be what was meant."""
    cases: dict[str, str] = {}
    for event_type, cls in domain.events.items():
        for field in fields(cls):
            if field.default is not MISSING and not optional(cls, field.name):
                value = f"coalesce({named(field.name)}, {quoted(str(field.default))})"
                condition = f"event_type = {quoted(event_type)}"
                before = cases.get(field.name, "")
                cases[field.name] = f"{before} WHEN {condition} THEN {value}"
    return cases
