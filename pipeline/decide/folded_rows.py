"""Aggregates as rows of the folded read model."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from ingest.columns.arrays import table_of
from ingest.columns.column import as_is
from ingest.columns.declared import record_of
from ingest.domain import Domain
from pipeline.decide.aggregates import Aggregate
from pipeline.decide.mistake import failed


class FoldedRows:
    """Aggregates as a table: `aggregate_id`, `version`, the columns of the domain's row type."""

    def __init__(self, domain: Domain) -> None:
        self._domain = domain
        self._record = record_of(domain.row_type)
        columns = [(name, column.type) for name, column in self._record.columns.items()]
        self.schema = pa.schema([("aggregate_id", pa.string()), ("version", pa.int64()), *columns])

    def table(self, aggregates: dict[str, Aggregate]) -> pa.Table:
        """Raises `DomainFailed` where a state has no row, and what Arrow does for its values."""
        row, normal = self._domain.row, self._record.normal
        shown: list[Any] = []
        try:
            for state, _ in aggregates.values():
                shown.append(normal(row(state)))
        except Exception as error:
            aggregate_id = [*aggregates][len(shown)]
            what = f"the row of {self._domain.id_field} {aggregate_id}"
            raise failed(what, error) from error
        columns = [
            list(aggregates),
            [version for _, version in aggregates.values()],
        ]
        for name, column in self._record.columns.items():
            values = [getattr(row, name) for row in shown]
            if column.to_log is not as_is:
                values = [None if value is None else column.to_log(value) for value in values]
            columns.append(values)
        return table_of(columns, self.schema)

    def check(self, state: Any) -> None:
        """Raises `Misfit` where a value of the row has no column, and whatever `row` raises."""
        self._record.checked(self._domain.row(state))
