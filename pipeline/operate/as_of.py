"""Asking about any moment: the read models as of a time, built from the log into memory."""

from __future__ import annotations

import weakref
from contextlib import ExitStack
from datetime import datetime
from typing import Literal, TypeAlias

import duckdb
import pyarrow as pa

from ingest.domain import Domain
from ingest.errors import ReadModelFailed
from pipeline.deployment import Deployment
from pipeline.feed.begin import in_utc
from pipeline.log.log import Log
from pipeline.log.schemas import check
from pipeline.replay.states import folded, scan
from pipeline.settings import Settings
from projections.model import View, read_models
from projections.relations import Positions, files_between
from projections.sandbox import check as check_question
from projections.sandbox import shut_in
from projections.session import Config, in_memory
from projections.sql import quoted
from projections.syntax import relations_in
from projections.tables import Tables
from projections.upcast import current_rows

Time: TypeAlias = Literal["recorded_at", "occurred_at"]


def as_of(
    at: datetime,
    *,
    by: Time = "recorded_at",
    query: str | None = None,
    settings: Settings | None = None,
    sandbox: bool = False,
    config: Config | None = None,
) -> duckdb.DuckDBPyConnection:
    """The read models from all rows of the log whose time `by` is `at` or earlier.

    Only those that `query` names are built, or else all. A time without an offset is in UTC. The
    log keeps the files that `events` and its like read for as long as the connection exists. With
    `sandbox`, SQL on it reads no others; ask by `projections.sandbox.sql` then, which also keeps
    it from writing those. `config` has DuckDB's settings.

    Raises `LogMismatch` where there is no log of the domain, and `ReadModelFailed` where events
    without those that had occurred later do not make a history.
    """
    deployed = Deployment.open(settings or Settings())
    domain, log = deployed.domain, deployed.log
    check(domain, log)
    with ExitStack() as reading:
        reading.enter_context(log.reading())
        until = {p: log.next_position(p) for p in range(log.partitions)}
        files = files_between(log, {}, until)
        db = in_memory(config)
        if sandbox:
            shut_in(db, (file.path.absolute() for held in files.values() for file in held))
            if query is not None:
                check_question(db, query)
        condition = f"{by} <= TIMESTAMP {quoted(in_utc(at).isoformat(sep=' '))}"
        tables = Tables(db, domain, _named(domain, db, query))
        tables.prepare(log.partitions)
        rows = current_rows(domain, log, {}, until, files)
        tables.set_log(f"SELECT * FROM ({rows}) WHERE {condition}")

        def states(_: Positions, until: Positions) -> dict[str, pa.Table]:
            return _folded(domain, log, until, condition)

        tables.build(tables.stored, log, until, states, condition, files)
        tables.show()
        weakref.finalize(db, reading.pop_all().close)
    return db


def _named(domain: Domain, db: duckdb.DuckDBPyConnection, query: str | None) -> set[str] | None:
    """The read models that a query needs; None for all, also where it cannot be read."""
    found = None if query is None else relations_in(db, query)
    if found is None:
        return None
    models = read_models(domain)
    needed = {model.name for model in models if model.name.lower() in found}
    for model in reversed(models):  # a view comes after what it reads
        if isinstance(model, View) and model.name in needed:
            needed |= model.reads
    return needed


def _folded(domain: Domain, log: Log, until: Positions, condition: str) -> dict[str, pa.Table]:
    try:
        return folded(domain, scan(domain, log, until, where=condition))
    except (AssertionError, LookupError, TypeError, ValueError, ArithmeticError) as error:
        raise ReadModelFailed(
            "the aggregates cannot be shown by that time: their events up to then, without earlier"
            f" ones that occurred later, make no history ({error!r}); ask by recorded_at"
        ) from None
