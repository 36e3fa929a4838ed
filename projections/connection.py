"""The published read models, as a connection that sees the newest published file."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias
from uuid import uuid4

import duckdb

from ingest.errors import NotAvailable, OutcomeTimeout
from ingest.outcome import Outcome
from projections import sandbox as sandboxed
from projections.held import Held
from projections.relations import KEPT_VARIABLE, path_in_kept
from projections.session import session
from projections.sql import named, quoted

LOOK_S = 0.02
"""How often a file is looked at that somebody waits for."""

Config: TypeAlias = Mapping[str, Any]
"""DuckDB's settings, as `duckdb.connect` takes them."""


class _Published:
    """One published file, in a DuckDB of its own.

    Not `duckdb.connect(path)`: within a process DuckDB opens one name once, and would go on showing
    the file that has been replaced.
    """

    def __init__(self, path: Path, sandbox: bool, config: Config | None) -> None:
        self.looked_at = time.monotonic()
        """No file that was published before this is newer."""
        self.seen = _seen(path)
        self.idle: list[duckdb.DuckDBPyConnection] = []
        self.db = in_memory(config)
        self.db.execute(f"ATTACH {quoted(str(path))} AS read_models (READ_ONLY)")
        self._begin = ["USE read_models"]
        self.db.execute("USE read_models")
        held = Held(self.db)
        try:
            identity, folder = held.origin() or ("", "")
        except duckdb.CatalogException:
            raise NotAvailable(
                f"{path} was published by an older Foldlog; start `foldlog up` once"
            ) from None
        self.positions = held.positions()
        here = _kept_beside(path, identity) or folder
        if here != folder:  # the data was copied, moved or mounted
            self._begin.append(f"SET VARIABLE {KEPT_VARIABLE} = {quoted(here)}")
            self.db.execute(self._begin[-1])
        if sandbox:
            files = (path_in_kept(identity, *file) for file in held.files())
            sandboxed.shut_in(self.db, (os.path.join(here, file) for file in files))

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """Another connection to the same: a DuckDB connection has one result, for one thread."""
        cursor = self.db.cursor()
        for statement in self._begin:
            cursor.execute(statement)
        return cursor


def _seen(path: Path) -> tuple[int, int]:
    """What tells one published file from the next."""
    try:
        found = path.stat()
    except FileNotFoundError:
        raise NotAvailable(
            f"there is no {path} yet; start `foldlog up`, or name another with --data"
        ) from None
    return found.st_ino, found.st_mtime_ns


def _kept_beside(path: Path, identity: str) -> str | None:
    """The log's files in the same data directory, if they are to be seen."""
    folder = os.path.join(os.path.dirname(os.path.abspath(path)), "kept")
    if not os.access(folder, os.X_OK):
        return None
    if not os.path.isdir(os.path.join(folder, identity)):
        raise NotAvailable(
            f"{path} was made from another log than the files in {folder};"
            " `foldlog up` makes a new one at its start"
        )
    return folder


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
        self._published: _Published | None = None
        self._now()

    def _now(self) -> _Published:
        """What is published now, or later; one thread opens it for all who wait."""
        now = time.monotonic()
        if (published := self._published) is not None and not self.moved_on:
            return published
        with self._opening:
            published = self._published
            if published is None or (published.looked_at < now and self.moved_on):
                published = _Published(self._path, self._sandbox, self._config)
                self._published = published
            return published

    @property
    def moved_on(self) -> bool:
        """Whether the next call has a newer file to open. Costs one look at the file's times."""
        return self._published is None or self._published.seen != _seen(self._path)

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
        if self._published is not None:
            self._published.db.close()

    def __enter__(self) -> ReadModels:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def not_published(outcome: Outcome, timeout: float) -> OutcomeTimeout:
    return OutcomeTimeout(
        f"the outcome of {outcome.command_id} was not published within {timeout} s;"
        " see `foldlog status`"
    )


def rows_of(answer: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    names = [column[0] for column in answer.description or []]
    return [dict(zip(names, row, strict=True)) for row in answer.fetchall()]


@cache
def _spill_folder() -> str | None:
    """Where the databases of this process put what does not fit into memory, if there is a place.

    DuckDB's own default is a folder in the current one, which may be anybody's.
    """
    try:
        folder = tempfile.mkdtemp(prefix="foldlog-")
    except OSError:
        return None
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def in_memory(config: Config | None = None) -> duckdb.DuckDBPyConnection:
    """A new database in memory, which spills into a folder of its own."""
    spill = _spill_folder()
    place = f"{spill}/{uuid4().hex}" if spill else ""
    return session(config={"temp_directory": place, **(config or {})})


def connect(
    path: Path | str = "data/read_models.duckdb",
    *,
    sandbox: bool = True,
    config: Config | None = None,
) -> ReadModels:
    """The published read models. Raises `NotAvailable` where there are none."""
    return ReadModels(Path(path), sandbox=sandbox, config=config)
