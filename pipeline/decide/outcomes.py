"""The outcomes of a partition's commands, so that a command that comes again finds its first one.

Nearly every command id is new, and that has to be known at once. So of each id in the window there
is a hash in one table in memory, and beside it where in the log its outcome is.
Only where a hash is found the log's rows are read, which alone say whether the id was there and
what came of it. Rows of the last batches are in memory: senders try again soon, and the log may not
have them yet. They stay as Arrow has them, in a fifth of what Python's objects would take.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

import pyarrow as pa

from ingest.envelope import REJECTED, UNREADABLE
from ingest.outcome import Kind
from pipeline.log.log import Log

First: TypeAlias = tuple[int, Kind, str | None, int]
"""The first outcome of a command id: position of its last row, kind, reason, recorded_at in µs."""

RECENT = 25_000
"""So many rows of a partition are in memory, and always those of the last few batches."""
BATCHES_MIN = 4
BATCH_SMALL = 500

SLOTS_MIN = 4096
FULL, ROOMY = 0.65, 0.36
"""Share of the slots that are taken when a table is made anew, and at most right after that."""

READ_KEPT = 4
"""Pieces of the log that stay in memory after a look: who sends much again, sends it in order."""

_COLUMNS = ["position", "command_id", "event_type", "reason", "recorded_at"]
_KINDS: dict[str, Kind] = {REJECTED: "rejected", UNREADABLE: "unreadable"}
_EPOCH = datetime.fromtimestamp(0, UTC).replace(tzinfo=None)


@dataclass(frozen=True, slots=True)
class Window:
    """How long a command id is remembered, by what the log says: the same whenever it is asked."""

    us: int
    """An outcome that was recorded longer ago is not looked for."""
    rows: int
    """Nor one that is further back in its partition."""

    def holds(self, first: First, position: int, recorded_us: int) -> bool:
        """Whether a command whose rows begin at `position` still finds that outcome."""
        return first[3] >= recorded_us - self.us and position - first[0] <= self.rows


A_DAY = Window(us=86_400_000_000, rows=2_500_000)


class Outcomes:
    """Ask `seen` first: it is quick, and false for nearly all ids that are new."""

    def __init__(
        self,
        window: Window = A_DAY,
        log: Log | None = None,
        number: int = 0,
        end: int = 0,
        recent: int = RECENT,
    ) -> None:
        """Of a partition of the log that ends before position `end`.

        Without a log, all rows stay in memory.
        """
        self._window = window
        self._log = log
        self._number = number
        self._recent_max = recent
        self._recent: deque[tuple[int, pa.Table]] = deque()
        """Position of the first row, and the rows; oldest first."""
        self._recent_from = end
        """What is below this position is in the log."""
        self._recent_count = 0
        self._restored = False
        self._read: list[tuple[int, pa.Table]] = []
        self._empty_table(0)

    def seen(self, command_id: str) -> bool:
        """Whether it may have an outcome: false is certain, and true nearly so."""
        key = hash(command_id) or 1
        table, mask = self._table, self._mask
        at = key & mask
        while taken := table[at]:
            if taken == key:
                return True
            at = at + 2 & mask
        return False

    def first(
        self, command_id: str, position: int, recorded_us: int, batch: dict[str, First]
    ) -> First | None:
        """The outcome that a command whose rows would begin at `position` has already.

        None where it has none in the window. `batch` holds the outcomes of its own batch so far.
        """
        if found := batch.get(command_id):  # the last one: where that is too old, all are
            return found if self._window.holds(found, position, recorded_us) else None
        for place in self._positions(command_id):
            logged = self._logged(command_id, place)
            if logged and self._window.holds(logged, position, recorded_us):
                return logged
        return None

    def add(self, outcomes: dict[str, First], rows: pa.Table, end: int) -> None:
        """Remember a batch's outcomes; its rows end before position `end`."""
        if not len(rows):
            return
        if self._count + len(outcomes) > self._count_max:
            recorded_us = next(iter(outcomes.values()))[3]
            self._make_room(len(outcomes), self._begin(end, recorded_us))
        positions = [first[0] for first in outcomes.values()]
        self._place(zip(map(hash, outcomes), positions, strict=True))
        self._keep(rows.select(_COLUMNS), end - len(rows))

    def restore(self, recorded_us: int) -> None:
        """Read from the log what a command may find that is recorded now. Once, before `seen`."""
        if self._log is None or self._restored:
            return
        self._restored = True
        begin = self._begin(self._recent_from, recorded_us)
        with self._log.reading():
            self._empty_table(self._recent_from - begin)
            for rows in self._log.read(self._number, begin, ["position", "command_id"]):
                columns = (rows[name].to_pylist() for name in ("command_id", "position"))
                ids = dict(zip(*columns, strict=True))
                ids.pop(None, None)
                self._place(zip(map(hash, ids), ids.values(), strict=True))

    def _begin(self, end: int, recorded_us: int) -> int:
        """A position before the window's first row, at little cost not far before it."""
        begin = max(0, end - self._window.rows)
        if self._log is None:
            return begin
        oldest = _EPOCH + timedelta(microseconds=max(0, recorded_us - self._window.us))
        with self._log.reading():
            return self._log.position_before(self._number, oldest, begin)

    def _keep(self, rows: pa.Table, first: int) -> None:
        last_first, last = self._recent[-1] if self._recent else (first, rows.slice(0, 0))
        self._recent_count += len(rows)
        if len(last) and len(last) + len(rows) <= min(BATCH_SMALL, self._recent_max):
            self._recent[-1] = last_first, pa.concat_tables([last, rows]).combine_chunks()
        else:
            self._recent.append((first, rows))
        while self._log is not None and len(self._recent) > BATCHES_MIN:
            oldest_first, oldest = self._recent[0]
            if self._recent_count - len(oldest) < self._recent_max:
                break
            self._recent.popleft()
            self._recent_count -= len(oldest)
            self._recent_from = oldest_first + len(oldest)

    # --- the table: open addressing; a slot is a hash and a position, side by side; hash 0 is none

    def _empty_table(self, count: int) -> None:
        """One that has room for `count` and more."""
        slots = 1 << max(SLOTS_MIN, int(count / ROOMY)).bit_length()
        self._mask = 2 * slots - 2
        self._table = array("q", bytes(16 * slots))
        self._count = 0
        self._count_max = int(FULL * slots)

    def _place(self, entries: Iterable[tuple[int, int]]) -> None:
        """Hashes and positions of ids."""
        table, mask = self._table, self._mask
        count = 0
        for key, position in entries:
            at = key & mask
            while table[at]:
                at = at + 2 & mask
            table[at] = key or 1
            table[at + 1] = position
            count += 1
        self._count += count

    def _make_room(self, more: int, begin: int) -> None:
        """A table for those from position `begin` on, and `more`."""
        old = self._table

        def kept() -> Iterator[tuple[int, int]]:
            numbers = iter(old)
            for key, position in zip(numbers, numbers, strict=True):
                if key and position >= begin:
                    yield key, position

        self._empty_table(sum(1 for _ in kept()) + more)
        self._place(kept())

    def _positions(self, command_id: str) -> Iterator[int]:
        """Where it may be."""
        key = hash(command_id) or 1
        at = key & self._mask
        while taken := self._table[at]:
            if taken == key:
                yield self._table[at + 1]
            at = at + 2 & self._mask

    # --- the rows

    def _logged(self, command_id: str, position: int) -> First | None:
        """The outcome in the row at this position, if it is that command's."""
        near = self._near(position)
        if near is None:
            return None
        first, rows = near
        at = position - first
        if rows["command_id"][at].as_py() != command_id:
            return None
        us = rows["recorded_at"][at].value
        kind = _KINDS.get(rows["event_type"][at].as_py(), "accepted")
        return position, kind, rows["reason"][at].as_py(), us

    def _near(self, position: int) -> tuple[int, pa.Table] | None:
        """Rows with this one among them, and the position of their first.

        None where it is above all that this writer has seen: then it is another writer's.
        """
        pieces = self._recent if position >= self._recent_from else self._read
        for first, rows in pieces:
            if first <= position < first + len(rows):
                return first, rows
        if not 0 <= position < self._recent_from:
            return None
        assert self._log is not None, "without a log all is in memory"
        with self._log.reading():
            rows = self._log.near(self._number, position, _COLUMNS)
        first = rows["position"][0].as_py()
        self._read = [(first, rows), *self._read[: READ_KEPT - 1]]
        return first, rows
