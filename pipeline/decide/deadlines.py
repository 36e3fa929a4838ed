"""The deadlines of a partition that wait: folded from the log, like an aggregate's state."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from typing import TypeAlias

from pipeline.decide.sends import Send

REPLACED_MAX = 100
"""So many more may lie in the heap than half of it, of those that wait no more."""

_Asked: TypeAlias = tuple[str, str, str]
"""Kind, id, and the command's name: of these only the newest waits."""


class Deadlines:
    """By the position of the row that asked for each."""

    def __init__(self, waiting: Iterable[Send] = ()) -> None:
        self._waiting: dict[int, Send] = {}
        self._newest: dict[_Asked, int] = {}
        self._by_time: list[tuple[int, int]] = []
        """A heap of due times and positions, some of which do not wait any more."""
        self._changed: dict[int, Send | None] = {}
        for send in waiting:
            self.add(send)
        self._changed.clear()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, send: Send) -> None:
        """It waits now, instead of an older one of the same command to the same aggregate."""
        assert send.due_us is not None, "a deadline has its time"
        asked = *send.key, send.command_type
        if asked in self._newest:
            self.handled(self._newest[asked])
        self._newest[asked] = send.position
        self._waiting[send.position] = self._changed[send.position] = send
        heapq.heappush(self._by_time, (send.due_us, send.position))
        if len(self._by_time) > 2 * len(self._waiting) + REPLACED_MAX:
            self._by_time = [
                (send.due_us, at) for at, send in self._waiting.items() if send.due_us is not None
            ]
            heapq.heapify(self._by_time)

    def handled(self, position: int) -> None:
        """It waits no more, if it did."""
        send = self._waiting.pop(position, None)
        if send is not None:
            self._changed[position] = None
            del self._newest[*send.key, send.command_type]

    @property
    def next_us(self) -> int | None:
        """When the next one is due, in µs since 1970."""
        while self._by_time and self._by_time[0][1] not in self._waiting:
            heapq.heappop(self._by_time)
        return self._by_time[0][0] if self._by_time else None

    def due(self, now_us: int, most: int) -> list[Send]:
        """Those whose time has come, in its order. Each waits until it is `handled`."""
        found: list[Send] = []
        while len(found) < most and (at := self.next_us) is not None and at <= now_us:
            found.append(self._waiting[heapq.heappop(self._by_time)[1]])
        return found

    def take_changed(self) -> Mapping[int, Send | None]:
        """What the next snapshot has to write: None for those that wait no more."""
        changed, self._changed = self._changed, {}
        return changed

    def put_back(self, changed: Mapping[int, Send | None]) -> None:
        """It could not be written."""
        self._changed = {**changed, **self._changed}
