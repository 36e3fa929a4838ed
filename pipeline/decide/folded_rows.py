"""Aggregates as rows of their read models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from ingest.aggregate import Aggregate
from ingest.columns.arrays import table_of
from ingest.columns.column import as_is
from ingest.columns.declared import record_of
from ingest.domain import Domain
from pipeline.decide.aggregates import Key, Versioned
from pipeline.decide.mistake import failed


class FoldedRows:
    """Aggregates as a table for each kind: `aggregate_id`, `version`, the columns of its row."""

    def __init__(self, domain: Domain) -> None:
        self._kinds = {kind.name: _Kind(kind) for kind in domain.aggregates}

    def tables(self, aggregates: Mapping[Key, Versioned]) -> dict[str, pa.Table]:
        """By the kind's name, with those that have none.

        Raises `DomainFailed` where a state has no row, and what Arrow does for its values.
        """
        found: dict[str, tuple[list[str], list[Any]]] = {name: ([], []) for name in self._kinds}
        for (name, aggregate_id), versioned in aggregates.items():
            ids, versioneds = found[name]
            ids.append(aggregate_id)
            versioneds.append(versioned)
        return {name: self._kinds[name].table(*those) for name, those in found.items()}

    def joined(self, parts: list[dict[str, pa.Table]]) -> dict[str, pa.Table]:
        """Tables of several parts of the log together."""
        every = [*parts, self.tables({})]
        return {name: pa.concat_tables(part[name] for part in every) for name in self._kinds}

    def check(self, name: str, state: Any) -> None:
        """Raises `Misfit` where a value of the row has no column, and whatever `row` raises."""
        self._kinds[name].check(state)


class _Kind:
    def __init__(self, kind: Aggregate[Any, Any, Any]) -> None:
        self._key = kind.key
        self._shown = kind.shown
        self._record = record_of(kind.row_type)
        columns = [(name, column.type) for name, column in self._record.columns.items()]
        self._schema = pa.schema([("aggregate_id", pa.string()), ("version", pa.int64()), *columns])
        self._none = self._schema.empty_table()

    def table(self, ids: list[str], versioneds: list[Versioned]) -> pa.Table:
        if not ids:
            return self._none
        shown, normal = self._shown, self._record.normal
        rows: list[Any] = []
        try:
            for state, _ in versioneds:
                rows.append(normal(shown(state)))
        except Exception as error:
            raise failed(f"the row of {self._key} {ids[len(rows)]}", error) from error
        columns: list[list[Any]] = [ids, [version for _, version in versioneds]]
        for name, column in self._record.columns.items():
            values = [getattr(row, name) for row in rows]
            if column.to_log is not as_is:
                values = [None if value is None else column.to_log(value) for value in values]
            columns.append(values)
        return table_of(columns, self._schema)

    def check(self, state: Any) -> None:
        self._record.checked(self._shown(state))
