"""Old events, seen as the code of today would have written them: for SQL and for the fold alike.

An upcast is declared in SQL, from one schema version to the next, so that DuckDB over the files and
the fold of an aggregate read the same. A field that is new and has a default needs no upcast.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import duckdb
import pyarrow as pa

from ingest.columns.declared import record_of
from ingest.domain import Domain, Upcast
from ingest.errors import DomainInvalid, one_line
from projections.relations import Files, LogFiles, Positions, empty_rows, rows_between
from projections.session import session
from projections.sql import literal, named, quoted, sql_type


def current_rows(
    domain: Domain,
    log: LogFiles,
    since: Positions,
    until: Positions,
    files: Files | None = None,
    kept: Path | None = None,
) -> str:
    """SQL for the log's rows from `since` up to but not including `until`, seen as of today."""
    return upcast(domain, rows_between(log, domain.stored_schema, since, until, files, kept))


def upcast(domain: Domain, rows: str) -> str:
    """SQL for the rows of the SELECT `rows`, which has the columns of `domain.stored_schema`."""
    defaults = _defaults(domain)
    if not defaults and not domain.upcasts:
        return rows
    for version in sorted({u.from_version for u in domain.upcasts}):
        rows = _raised(domain, [u for u in domain.upcasts if u.from_version == version], rows)
    shown = [_case(c, defaults[c]) if c in defaults else named(c) for c in domain.schema.names]
    return f"SELECT {', '.join(shown)} FROM ({rows})"


def check_upcasts(domain: Domain) -> None:
    """Raises `DomainInvalid` for SQL that does not hold, with its event, version and column."""
    rows = empty_rows(domain.stored_schema)
    with session() as db:
        for step in domain.upcasts:
            for column, sql in step.columns.items():
                try:
                    db.sql(_raised(domain, [replace(step, columns={column: sql})], rows))
                except duckdb.Error as error:
                    raise DomainInvalid(
                        f"the Upcast of {step.event_type} from version {step.from_version} says"
                        f" {column} = {sql}: {one_line(error)}"
                    ) from None


def upcast_table(domain: Domain, rows: pa.Table) -> pa.Table:
    """The same for rows in memory, in their order."""
    for field in domain.stored_schema:
        if field.name not in rows.schema.names:
            rows = rows.append_column(field, pa.nulls(len(rows), field.type))
    with session() as db:
        db.register("old", rows)
        return db.sql(upcast(domain, "SELECT * FROM old")).to_arrow_table()


def _raised(domain: Domain, steps: Sequence[Upcast], rows: str) -> str:
    """The rows after upcasts from one version; a column keeps the type that the log has for it."""
    types = {column.name: sql_type(column.type) for column in domain.stored_schema}
    cases: dict[str, str] = {}
    for step in steps:
        condition = (
            f"event_type = {quoted(step.event_type)} AND schema_version = {step.from_version}"
        )
        for column, sql in {**step.columns, "schema_version": f"{step.from_version + 1}"}.items():
            then = f"WHEN {condition} THEN ({sql})::{types[column]}"
            cases[column] = f"{cases.get(column, '')} {then}"
    replaced = ", ".join(_case(column, sql) for column, sql in cases.items())
    return f"SELECT * REPLACE ({replaced}) FROM ({rows})"


def _case(column: str, cases: str) -> str:
    return f"CASE{cases} ELSE {named(column)} END AS {named(column)}"


def _defaults(domain: Domain) -> dict[str, str]:
    """Column → the cases in which NULL stands for a default, and cannot be what was meant."""
    cases: dict[str, str] = {}
    for event_type, cls in domain.events.items():
        record = record_of(cls)
        for name, default in record.defaults.items():
            if not record.columns[name].optional:
                value = f"coalesce({named(name)}, {literal(default, record.columns[name].type)})"
                condition = f"event_type = {quoted(event_type)}"
                cases[name] = f"{cases.get(name, '')} WHEN {condition} THEN {value}"
    return cases
