"""One partition's snapshot in one SQLite file."""

from __future__ import annotations

import pickle
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

from ingest import crash
from ingest.errors import NoRoom
from pipeline.decide.aggregates import Key, Versioned
from pipeline.decide.sends import Send

TABLES = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
CREATE TABLE IF NOT EXISTS about
    (code TEXT, position INTEGER, run TEXT, aggregates INTEGER);
CREATE TABLE IF NOT EXISTS aggregates
    (kind TEXT, id TEXT, version INTEGER, state BLOB, checksum INTEGER, PRIMARY KEY (kind, id))
    WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS deadlines (position INTEGER PRIMARY KEY, send BLOB, checksum INTEGER);
"""


class Damaged(sqlite3.DatabaseError):
    """A row's checksum is wrong."""


def _loaded(path: Path, key: Key, version: int, state: bytes, checksum: int) -> Versioned:
    if crc32(state, version) != checksum:
        raise Damaged(f"{path}: the state of {' '.join(key)} is damaged")
    return pickle.loads(state), version


class Snapshot:
    """One partition's file. Its position is 0 where there is nothing that can be used."""

    def __init__(self, path: Path, code: str) -> None:
        """Raises `NoRoom` where no file can be written."""
        self.position = 0
        self.run: str | None = None
        """Which run wrote the last row before `position`; see `replay.matching`."""
        self._path = path
        self._code = code
        try:
            try:
                self._open()
            except sqlite3.DatabaseError:
                self.discard()
        except (sqlite3.Error, OSError) as error:
            raise NoRoom(
                f"cannot write {path}: {error}; nothing is lost: make room, and start again"
            ) from None

    def _open(self) -> None:
        self._path.touch(mode=0o600)
        self._db = sqlite3.connect(self._path, check_same_thread=False)
        self._reading = self._db
        self._db.executescript(TABLES)
        self._reading = sqlite3.connect(self._path)
        found = self._db.execute("SELECT * FROM about").fetchone()
        if found:
            code, self.position, self.run, aggregates = found
            # One that is not there would be taken for one that never was.
            if code != self._code or aggregates != self._count():
                self.discard()

    def _count(self) -> int:
        (count,) = self._db.execute("SELECT count(*) FROM aggregates").fetchone()
        return int(count)

    def discard(self) -> None:
        """Throw it away, and begin an empty one."""
        self.close()
        for path in (self._path, *self._path.parent.glob(f"{self._path.name}-*")):
            path.unlink(missing_ok=True)
        self.position, self.run = 0, None
        self._open()

    def close(self) -> None:
        """Nothing more is read from it, or written."""
        with suppress(sqlite3.Error):
            self._reading.close()
            self._db.close()

    def load(self, key: Key) -> Versioned | None:
        """Raises `sqlite3.DatabaseError` where the file is damaged; it is thrown away then."""
        try:
            found = self._reading.execute(
                "SELECT version, state, checksum FROM aggregates WHERE kind = ? AND id = ?", key
            ).fetchone()
            if found is None:
                return None
            return _loaded(self._path, key, *found)
        except sqlite3.DatabaseError:
            self.discard()
            raise

    def deadlines(self) -> list[Send]:
        """Those that wait. Raises `sqlite3.DatabaseError` where the file is damaged."""
        found = []
        for position, send, checksum in self._db.execute("SELECT * FROM deadlines"):
            if crc32(send, position) != checksum:
                raise Damaged(f"{self._path}: the deadline of position {position} is damaged")
            found.append(pickle.loads(send))
        return found

    def write(
        self,
        position: int,
        run: str | None,
        aggregates: Mapping[Key, Versioned],
        deadlines: Mapping[int, Send | None],
    ) -> None:
        """Move on to `position`: what changed since the last one, in one transaction.

        Raises `sqlite3.Error` where it cannot be written, and where another writer has moved on.
        """
        states = ((k, v, pickle.dumps(s, 5)) for k, (s, v) in aggregates.items())
        rows = ((*key, version, state, crc32(state, version)) for key, version, state in states)
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            (held,) = self._db.execute("SELECT max(position) FROM about").fetchone()
            if (held or 0) != self.position:
                raise sqlite3.IntegrityError("another writer has taken one")
            self._db.executemany("INSERT OR REPLACE INTO aggregates VALUES (?, ?, ?, ?, ?)", rows)
            self._write_deadlines(deadlines)
            self._db.execute("DELETE FROM about")
            about = [self._code, position, run, self._count()]
            self._db.execute("INSERT INTO about VALUES (?, ?, ?, ?)", about)
            crash.point("snapshot.to_commit")
        crash.point("snapshot.committed")
        self.position, self.run = position, run

    def _write_deadlines(self, changed: Mapping[int, Send | None]) -> None:
        over = ((at,) for at, send in changed.items() if send is None)
        self._db.executemany("DELETE FROM deadlines WHERE position = ?", over)
        sends = ((at, pickle.dumps(send, 5)) for at, send in changed.items() if send is not None)
        rows = ((at, send, crc32(send, at)) for at, send in sends)
        self._db.executemany("INSERT OR REPLACE INTO deadlines VALUES (?, ?, ?)", rows)


@dataclass(frozen=True, slots=True)
class Saved:
    """One moment of a snapshot that another process may be writing. Position 0 where it is none."""

    position: int = 0
    run: str | None = None
    """Which wrote the last row before `position`."""
    path: Path = Path()
    db: sqlite3.Connection | None = None

    def aggregates(self) -> dict[Key, Versioned]:
        """All of them. Raises `sqlite3.DatabaseError` where the file is damaged."""
        if self.db is None:
            return {}
        found = self.db.execute("SELECT * FROM aggregates").fetchall()
        (expected,) = self.db.execute("SELECT aggregates FROM about").fetchone()
        if len(found) != expected:
            raise Damaged(f"{self.path}: it has {len(found)} of {expected} aggregates")
        kinds = {kind: kind for kind, *_ in found}  # one text of each, not one a row
        keys = ((kinds[kind], aggregate_id) for kind, aggregate_id, *_ in found)
        return {k: _loaded(self.path, k, *row[2:]) for k, row in zip(keys, found, strict=True)}


@contextmanager
def saved(path: Path, code: str) -> Iterator[Saved]:
    """What the file at `path` holds now; nothing is written, and nothing is thrown away."""
    try:
        db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True)
    except sqlite3.Error:  # there is none
        yield Saved()
        return
    with closing(db):
        found = None
        with suppress(sqlite3.Error):
            db.execute("BEGIN")
            found = db.execute("SELECT code, position, run FROM about").fetchone()
        if found and found[0] == code:
            yield Saved(found[1], found[2], path, db)
        else:
            yield Saved()
