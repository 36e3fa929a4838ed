"""Rows as JSON: what `foldlog query "FROM events" --format json` prints of them.

Of the columns, an event has the envelope and the fields of its own type. `foldlog schema events` is
the JSON Schema of it.
"""

from __future__ import annotations

import pyarrow as pa

from ingest.domain import Domain
from ingest.envelope import ENVELOPE, columns_of
from projections.session import session
from projections.sql import named, quoted


class Lines:
    """From rows of the log, as of today's code, to a JSON object each. Not for several threads."""

    def __init__(self, domain: Domain) -> None:
        self._db = session(config={"threads": 1})
        self._db.execute("SET enable_progress_bar = false")  # it would stand between the lines
        cases = (
            f"WHEN {quoted(name)} THEN to_json({_struct(columns_of(cls))})"
            for name, cls in domain.events.items()
        )
        self._select = f"SELECT CASE event_type {' '.join(cases)} END FROM rows"

    def of(self, rows: pa.Table) -> list[str]:
        """Each row's event, in order."""
        self._db.register("rows", rows)
        try:
            return [str(line) for (line,) in self._db.execute(self._select).fetchall()]
        finally:
            self._db.unregister("rows")


def _struct(own: dict[str, pa.DataType]) -> str:
    """SQL for an object of the envelope and an event's own fields."""
    columns = {**{column.name: column.type for column in ENVELOPE}, **own}
    parts = (f"{quoted(name)}: {_shown(name, kind)}" for name, kind in columns.items())
    return f"{{{', '.join(parts)}}}"


def _shown(name: str, kind: pa.DataType) -> str:
    """SQL for a value: bytes as the text that they are, or with DuckDB's \\x for each."""
    column = named(name)
    if pa.types.is_binary(kind):
        return f"coalesce(try(decode({column})), CAST({column} AS VARCHAR))"
    return column
