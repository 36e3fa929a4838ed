"""Asking: a connection that sees the newest published file, and typed queries with a dispatcher.

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
import time
from datetime import date, datetime
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar, cast, get_origin

import duckdb
from pydantic import BaseModel, ConfigDict, TypeAdapter

from ingest.domain import Domain
from ingest.errors import NotAvailable, OutcomeTimeout
from ingest.outcome import Outcome
from projections.relations import quoted
from projections.session import session

R = TypeVar("R")
"""A query's answer: a list of rows, or one row or None, a row being a pydantic model."""

LOOK_S = 0.02


class Asked(Protocol):
    """Anything that runs SQL as DuckDB's connections do."""

    def execute(self, query: str, parameters: Any = None) -> duckdb.DuckDBPyConnection: ...


class ReadModels:
    """The published read models: each call sees the newest published file.

    It has the methods of a DuckDB connection. A result that was fetched from or a relation keeps
    the moment at which it was asked for.
    """

    def __init__(self, path: Path) -> None:
        """Raises `NotAvailable` where nothing is published."""
        self._path = path
        self._seen: tuple[int, int] | None = None
        self._db: duckdb.DuckDBPyConnection
        _ = self.newest

    @property
    def newest(self) -> duckdb.DuckDBPyConnection:
        """DuckDB's own connection, read-only, for what insists on one. It does not move on."""
        try:
            found = self._path.stat()
        except FileNotFoundError:
            raise NotAvailable(
                f"there is no {self._path} yet; start `foldlog up`, or name another with --data"
            ) from None
        seen = found.st_ino, found.st_mtime_ns
        if seen != self._seen:
            # Not connect(path): within a process DuckDB opens one name once, and would go on
            # showing the file that has been replaced.
            self._db = session()
            self._db.execute(f"ATTACH {quoted(str(self._path))} AS read_models (READ_ONLY)")
            self._db.execute("USE read_models")
            self._seen = seen
        return self._db

    @property
    def published_ns(self) -> int:
        """When the file that was last seen was published, in ns since 1970; never too late."""
        return self._seen[1] if self._seen else 0

    def execute(self, query: str, parameters: Any = None) -> duckdb.DuckDBPyConnection:
        return self.newest.execute(query, parameters)

    def __getattr__(self, name: str) -> Any:
        reads_on = name.startswith("fetch") or name in ("description", "rowcount")
        return getattr(self._db if reads_on else self.newest, name)

    def wait_for(self, outcome: Outcome, timeout: float = 10) -> None:
        """Until what the command did is published. Raises `OutcomeTimeout` after `timeout` s."""
        deadline = time.monotonic() + timeout
        held = "SELECT next_position FROM live.positions WHERE partition = ?"
        while True:
            (position,) = self.execute(held, [outcome.partition]).fetchone() or (0,)
            if position > outcome.position:
                return
            if time.monotonic() > deadline:
                raise OutcomeTimeout(
                    f"the outcome of {outcome.command_id} was not published within {timeout} s;"
                    " see `foldlog status`"
                )
            time.sleep(LOOK_S)

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> ReadModels:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def connect(path: Path | str = "data/read_models.duckdb") -> ReadModels:
    """The published read models. Raises `NotAvailable` where there are none."""
    return ReadModels(Path(path))


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


def ask(db: Asked, query: Query[R]) -> R:
    """The dispatcher: runs a query's SQL with its fields as parameters, and types the answer."""
    found = db.execute(query.sql, query.parameters())
    names = [column[0] for column in found.description or []]
    rows = [dict(zip(names, row, strict=True)) for row in found.fetchall()]
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
