"""Typed queries, and what answers them.

A query is a pydantic model. Its fields are bound to the parameters of its SQL, never pasted into
it, and its answer has a type:

    class UnitsOf(Query[Units | None]):
        sql: ClassVar[str] = "SELECT sum(units) AS units FROM carts WHERE cart_id = $cart_id"
        cart_id: str

    ask(db, UnitsOf(cart_id="7"))
"""

from __future__ import annotations

from typing import Any, ClassVar, Generic, Protocol, TypeVar, cast, get_origin

import duckdb
from pydantic import BaseModel, ConfigDict, TypeAdapter

from projections.connection import ReadModels, rows_of

R = TypeVar("R")
"""A query's answer: a list of rows, or one row or None, a row being a pydantic model."""


class Asked(Protocol):
    """Anything that runs SQL as DuckDB's connections do."""

    def execute(self, query: str, parameters: Any = None) -> duckdb.DuckDBPyConnection:
        """The connection with the answer, to fetch it from."""


class Query(BaseModel, Generic[R]):
    """A question about read models. A subclass has `sql`, with `$field` for each of its fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sql: ClassVar[str]
    answer: ClassVar[TypeAdapter[Any]]
    """What an answer is validated as."""
    many: ClassVar[bool]
    """Whether the answer is a list of rows."""

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        types = [t for base in cls.__mro__ if issubclass(base, Query)
                 for t in base.__pydantic_generic_metadata__["args"]]  # fmt: skip
        if types and not isinstance(types[0], TypeVar):
            cls.answer = TypeAdapter(types[0])
            cls.many = get_origin(types[0]) is list

    def parameters(self) -> dict[str, Any]:
        """Field → value, as its SQL names them."""
        return {name: getattr(self, name) for name in type(self).model_fields}


def ask(db: Asked | ReadModels, query: Query[R]) -> R:
    """The typed answer to a query: its SQL is run with its fields as parameters.

    Raises `duckdb.Error`, and `pydantic.ValidationError` where the rows are not of the answer's
    type.
    """
    sql, parameters = query.sql, query.parameters()
    if isinstance(db, ReadModels):
        rows = db.rows(sql, parameters)
    else:
        rows = rows_of(db.execute(sql, parameters))
    shown: Any = rows if query.many else next(iter(rows), None)
    return cast(R, query.answer.validate_python(shown))
