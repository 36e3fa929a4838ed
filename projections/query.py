"""Typed queries, and what answers them.

A query is a pydantic model. Its fields are bound to the parameters of its SQL, never pasted into
it, and its answer has a type:

    class UnitsOf(Query[Units | None]):
        sql: ClassVar[str] = "SELECT sum(units) AS units FROM carts WHERE cart_id = $cart_id"
        cart_id: str

    ask(db, UnitsOf(cart_id="7"))
"""

from __future__ import annotations

import importlib
import importlib.util
from datetime import date, datetime
from typing import Any, ClassVar, Generic, Protocol, TypeVar, cast, get_origin

import duckdb
from pydantic import BaseModel, ConfigDict, TypeAdapter

from ingest.domain import Domain
from projections.connection import ReadModels, rows_of

R = TypeVar("R")
"""A query's answer: a list of rows, or one row or None, a row being a pydantic model."""


class Asked(Protocol):
    """Anything that runs SQL as DuckDB's connections do."""

    def execute(self, query: str, parameters: Any = None) -> duckdb.DuckDBPyConnection: ...


class Query(BaseModel, Generic[R]):
    """A question about read models. A subclass has `sql`, with `$field` for each of its fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sql: ClassVar[str]
    answer: ClassVar[TypeAdapter[Any]]
    many: ClassVar[bool]

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        types = [t for base in cls.__mro__ if issubclass(base, Query)
                 for t in base.__pydantic_generic_metadata__["args"]]  # fmt: skip
        if types and not isinstance(types[0], TypeVar):
            cls.answer = TypeAdapter(types[0])
            cls.many = get_origin(types[0]) is list

    def parameters(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in type(self).model_fields}


def ask(db: Asked | ReadModels, query: Query[R]) -> R:
    """The dispatcher: runs a query's SQL with its fields as parameters, and types the answer."""
    sql, parameters = query.sql, query.parameters()
    if isinstance(db, ReadModels):
        rows = db.rows(sql, parameters)
    else:
        rows = rows_of(db.execute(sql, parameters))
    shown: Any = rows if query.many else next(iter(rows), None)
    return cast(R, query.answer.validate_python(shown))


class RejectionReason(BaseModel):
    outcome: str
    reason: str
    commands: int
    first_at: datetime
    last_at: datetime


class RejectionReasons(Query[list[RejectionReason]]):
    """Why commands came to nothing, by day of arrival (UTC), the most frequent reason first."""

    sql: ClassVar[str] = """
        SELECT
            CASE event_type WHEN 'CommandRejected' THEN 'rejected' ELSE 'unreadable' END AS outcome,
            reason, count(*) AS commands, min(recorded_at) AS first_at, max(recorded_at) AS last_at
        FROM rejections
        WHERE ($since::DATE IS NULL OR recorded_at >= $since)
            AND ($until::DATE IS NULL OR recorded_at < $until::DATE + INTERVAL 1 DAY)
        GROUP BY event_type, reason ORDER BY commands DESC, reason"""
    since: date | None = None
    until: date | None = None


def queries(domain: Domain) -> dict[str, type[Query[Any]]]:
    """The typed queries by name: those of every domain, and those in the domain's module."""
    found: dict[str, type[Query[Any]]] = {"RejectionReasons": RejectionReasons}
    module = domain.queries or f"{__package__}.{domain.name}.queries"
    if domain.queries or _exists(module):
        for name, value in vars(importlib.import_module(module)).items():
            if isinstance(value, type) and issubclass(value, Query) and hasattr(value, "sql"):
                found[name] = value
    return found


def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False
