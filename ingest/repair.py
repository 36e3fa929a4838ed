"""A Redis that is behind the log: what stands in a stream is sorted by what the log has of it."""

from __future__ import annotations

from itertools import count
from typing import Any

from ingest import crash
from ingest.entries import Compare, entry_of
from ingest.line import Line, checked
from ingest.scripts import SIFT, acted, script
from ingest.stream_id import SEQUENCE_MAX, as_numbers, next_id

PAGE = 1000
"""Entries that are compared, removed or moved at a time."""

_FULL = "equal or smaller"
"""Redis' answer to an id that is not above the stream's last one."""


class Repair:
    """One join's work on the entries below the log's last id; see `ingest.joining`.

    All methods raise what redis-py does while Redis is away.
    """

    def __init__(
        self, line: Line, stream: str, behind: str, compare: Compare, last_id: str, taken_to: str
    ) -> None:
        self._line = line
        self._stream = stream
        self._behind = behind
        self._compare = compare
        self._last = as_numbers(last_id)
        milliseconds, sequence = as_numbers(next_id(taken_to))
        self._free = (f"{milliseconds}-{n}" for n in count(sequence))
        self.ceiling = f"{milliseconds}-{SEQUENCE_MAX}"
        """Above all ids that moved entries are given; no server gives it out by itself."""
        self._raised = False
        self.passed_over = 0

    def raise_ids(self) -> None:
        """Let the stream's ids go on above the `ceiling`: what stands below it is then all."""
        if self._raised:
            return
        raised = ("XADD", self._stream, self.ceiling, "raised", "")
        lowered = ("XDEL", self._stream, self.ceiling)
        crash.point("rejoin.to_raise")
        *_, done = self._line.ask(("MULTI",), raised, lowered, ("EXEC",))
        crash.point("rejoin.raised")
        checked(done, but=_FULL)
        self._raised = True

    def sift(self, stream: str, until: str) -> None:
        """Of a stream's entries up to an id, remove those that the log has and move the others."""
        while True:
            (found,) = self._line.ask(("XRANGE", stream, "-", until, "COUNT", PAGE))
            if not found:
                return
            standing = self._compare([entry_of(*entry) for entry in found])
            if stream == self._stream and {*standing} != {"committed"}:
                until = self.ceiling  # the rest of its millisecond too, so as not to be overtaken
                self.raise_ids()
            arguments: list[Any] = []
            for (stream_id, fields), of in zip(found, standing, strict=True):
                moved_to = "" if of == "committed" else next(self._free)
                arguments += (moved_to, stream_id, len(fields), *fields)
                below = as_numbers(stream_id.decode()) <= self._last
                self.passed_over += of == "new" and below
            crash.point("rejoin.to_send")
            answer = self._line.ask(script(SIFT, (stream, self._behind), arguments))
            crash.point("rejoin.sent")
            acted(stream, *answer)
