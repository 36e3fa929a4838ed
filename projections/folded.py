"""An aggregate's table, which merges batch by batch, as `projections.select` has it."""

from __future__ import annotations

from dataclasses import dataclass

from projections.model import Folded
from projections.sql import named, quoted, sql_type


def states_of(aggregate: str) -> str:
    """The relation with the new rows of a kind of aggregate: its id, version and columns."""
    return f"states of {aggregate}"


@dataclass(frozen=True, slots=True)
class LiveFolded:
    """SQL that makes and merges the rows of the hidden table."""

    model: Folded
    source = "events"
    """The relation of `projections.relations` that it reads."""

    @property
    def empty(self) -> str:
        """SELECT of no rows, with the table's columns."""
        types = {name: sql_type(column) for name, column in self.model.columns.items()}
        columns = {self.model.key: "VARCHAR", **types, **_ALWAYS}
        shown = ", ".join(f"NULL::{kind} AS {named(name)}" for name, kind in columns.items())
        return f"SELECT {shown} WHERE false"

    @property
    def batch(self) -> str:
        """SELECT of one row an aggregate: its newest state, and the times of its new events.

        From `events`, and from the relation `states`, with the row of every aggregate in those.
        """
        columns = "".join(f"{named(name)}, " for name in self.model.columns)
        return (
            f"SELECT aggregate_id AS {named(self.model.key)}, {columns}version, first_at, last_at"
            f" FROM (SELECT * FROM {named(states_of(self.model.aggregate))}"
            " QUALIFY row_number() OVER (PARTITION BY aggregate_id ORDER BY version DESC) = 1)"
            " JOIN (SELECT aggregate_id, min(occurred_at) AS first_at, max(occurred_at) AS last_at"
            f" FROM events WHERE aggregate = {quoted(self.model.aggregate)}"
            " GROUP BY aggregate_id) USING (aggregate_id)"
        )

    @property
    def view(self) -> str:
        """SELECT of what readers see."""
        return f"SELECT * FROM {self.model.table}"

    def merge(self, batch: str) -> str:
        """As `LiveSelect.merge`: in the order of the table's rows, of which some are looked at."""
        key, table = named(self.model.key), self.model.table
        columns = [key, *map(named, self.model.columns), *_ALWAYS]
        rows = f"SELECT rowid AS row, {key} FROM {table} WHERE {key} IN (SELECT {key} FROM {batch})"
        updated = "".join(f"{name} = s.{name}, " for name in columns[1:-2])
        return (
            f"MERGE INTO {table} t USING (SELECT s.*, t.row FROM {batch} s LEFT JOIN ({rows}) t"
            f" ON t.{key} = s.{key} ORDER BY t.row) s ON t.rowid = s.row"
            f" WHEN MATCHED THEN UPDATE SET {updated}"
            "first_at = least(t.first_at, s.first_at), last_at = greatest(t.last_at, s.last_at)"
            f" WHEN NOT MATCHED THEN INSERT ({', '.join(columns)})"
            f" VALUES ({', '.join(f's.{name}' for name in columns)})"
        )


_ALWAYS = {"version": "BIGINT", "first_at": "TIMESTAMP", "last_at": "TIMESTAMP"}
"""The columns after the domain's own."""
