"""What a database of read models says of itself, in its schema `live`: read here, and only here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from projections.session import session
from projections.sql import quoted


class Held:
    """Of the database that a connection is in, or of one that is attached to it by that name."""

    def __init__(self, db: duckdb.DuckDBPyConnection, database: str | None = None) -> None:
        self._db = db
        self._live = f"{database}.live" if database else "live"

    def positions(self) -> dict[int, int]:
        """Partition → how many of its rows the read models hold."""
        found = self._db.execute(f"SELECT partition, next_position FROM {self._live}.positions")
        return dict(found.fetchall())

    def last_ids(self) -> dict[int, str]:
        """Partition → the stream id of the last row that is held; without those that have none."""
        held = f"SELECT partition, stream_id FROM {self._live}.positions"
        found = self._db.execute(f"{held} WHERE stream_id IS NOT NULL")
        return dict(found.fetchall())

    def models(self) -> set[tuple[str, str]]:
        """The names of the tables that are built, each with the digest of its declaration."""
        return {*self._db.execute(f"FROM {self._live}.models").fetchall()}

    def proofs(self) -> set[str]:
        """Of the trials that need not be made again; see `projections.declarations`."""
        try:
            found = self._db.execute(f"SELECT proof FROM {self._live}.trials").fetchall()
        except duckdb.CatalogException:  # a new file, or one of before these were noted
            return set()
        return {proof for (proof,) in found}

    def files(self) -> set[tuple[int, str]]:
        """Partition and name of each file of the log that `events` and its like read."""
        found = self._db.execute(f"SELECT partition, name FROM {self._live}.files")
        return {*found.fetchall()}

    def origin(self) -> tuple[str, str] | None:
        """Which log those are of, and the folder where they are; None where it was never told.

        Raises `duckdb.CatalogException` for a file of before that was noted.
        """
        found: tuple[str, str] | None = self._db.execute(f"FROM {self._live}.origin").fetchone()
        return found


@contextmanager
def held_in(path: Path) -> Iterator[Held]:
    """What the file at `path` says of itself; for as long as this lasts."""
    with session() as db:  # not connect(path), which may show a file that has been replaced
        db.execute(f"ATTACH {quoted(str(path))} AS held (READ_ONLY)")
        yield Held(db, "held")


def positions_in(path: Path) -> dict[int, int]:
    """Partition → how many of its rows the published read models hold; empty without a file."""
    if not path.exists():
        return {}
    with held_in(path) as held:
        return held.positions()
