"""The published read models, as a connection that sees the newest published file."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import duckdb

from ingest.errors import NotAvailable, OutcomeTimeout
from ingest.outcome import Outcome
from projections import sandbox as sandboxed
from projections.published import Published, stamp
from projections.session import Config
from projections.sql import named

LOOK_S = 0.02
"""How often a file is looked at that somebody waits for."""


class ReadModels:
    """The published read models: each call sees the newest published file. Threads may share it.

    Each answer has a cursor of its own, and keeps the moment at which it was asked for. With
    `sandbox`, what the SQL given to these methods can do is to ask: see `projections.sandbox`.
    `config` has DuckDB's settings, as for `duckdb.connect`; a sandbox locks them.
    """

    def __init__(self, path: Path, *, sandbox: bool = True, config: Config | None = None) -> None:
        """Raises `NotAvailable` where nothing is published."""
        self._path = path
        self._sandbox = sandbox
        self._config = config
        self._opening = threading.Lock()
        self._published: Published | None = None
        self._now()

    def _now(self) -> Published:
        """What is published now, or later; one thread opens it for all who wait."""
        now = time.monotonic()
        if (published := self._published) is not None and not self.moved_on:
            return published
        with self._opening:
            published = self._published
            if published is None or (published.looked_at < now and self.moved_on):
                published = Published(self._path, self._sandbox, self._config)
                self._published = published
            return published

    @property
    def moved_on(self) -> bool:
        """Whether the next call has a newer file to open. Costs one look at the file's times."""
        return self._published is None or self._published.seen != stamp(self._path)

    @property
    def newest(self) -> duckdb.DuckDBPyConnection:
        """DuckDB's own connection, read-only, for what insists on one. It does not move on.

        Raises `NotAvailable` in a sandbox, which cannot keep it from writing files.
        """
        if self._sandbox:
            raise NotAvailable(
                "DuckDB's own connection can do more than ask; connect(…, sandbox=False) has it"
            )
        return self._now().db

    @property
    def published_ns(self) -> int:
        """When the file that was last seen was published, in ns since 1970; never too late."""
        return self._published.seen[1] if self._published else 0

    def execute(self, query: str, parameters: Any = None) -> duckdb.DuckDBPyConnection:
        """Run SQL; fetch the answer from what is returned."""
        return self._run(self._now().cursor(), query, parameters)

    def sql(self, query: str, *, params: Any = None) -> duckdb.DuckDBPyRelation:
        """A question as DuckDB's relation: it can be printed, fetched from and asked further."""
        cursor = self._now().cursor()
        if self._sandbox:
            return sandboxed.sql(cursor, query, params)
        return cursor.sql(query, params=params)

    def table(self, name: str) -> duckdb.DuckDBPyRelation:
        """A read model, `events`, `rejections` or `outcomes` as a relation."""
        return self.sql(f"FROM {named(name)}")

    def rows(self, query: str, parameters: Any = None) -> list[dict[str, Any]]:
        """All rows of the answer, a dict each. Cheaper than `execute`: it uses cursors again."""
        published = self._now()
        try:
            cursor = published.idle.pop()
        except IndexError:  # more threads ask now than ever before
            cursor = published.cursor()
        try:
            return rows_of(self._run(cursor, query, parameters))
        finally:
            published.idle.append(cursor)

    def _run(
        self, cursor: duckdb.DuckDBPyConnection, query: str, parameters: Any
    ) -> duckdb.DuckDBPyConnection:
        if self._sandbox:
            return sandboxed.execute(cursor, query, parameters)
        return cursor.execute(query, parameters)

    def holds(self, outcome: Outcome) -> bool:
        """Whether what the command did is published."""
        return self._now().positions.get(outcome.partition, 0) > outcome.position

    def wait_for(self, outcome: Outcome, timeout: float = 10) -> None:
        """Until what the command did is published. Raises `OutcomeTimeout` after `timeout` s."""
        deadline = time.monotonic() + timeout
        while not self.holds(outcome):
            if time.monotonic() > deadline:
                raise not_published(outcome, timeout)
            time.sleep(LOOK_S)

    def close(self) -> None:
        """Close DuckDB's connection, and with it every answer that was not fetched."""
        if self._published is not None:
            self._published.db.close()

    def __enter__(self) -> ReadModels:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def not_published(outcome: Outcome, timeout: float) -> OutcomeTimeout:
    """The error after `timeout` s of waiting."""
    return OutcomeTimeout(
        f"the outcome of {outcome.command_id} was not published within {timeout} s;"
        " see `foldlog status`"
    )


def rows_of(answer: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    """All rows of an answer, a dict of column → value each."""
    names = [column[0] for column in answer.description or []]
    return [dict(zip(names, row, strict=True)) for row in answer.fetchall()]


def connect(
    path: Path | str = "data/read_models.duckdb",
    *,
    sandbox: bool = True,
    config: Config | None = None,
) -> ReadModels:
    """The published read models. Raises `NotAvailable` where there are none."""
    return ReadModels(Path(path), sandbox=sandbox, config=config)
