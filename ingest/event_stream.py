"""A partition's events on a Redis Stream, where each has an id that follows from its position.

An event at position 118 has the id `119-0`, so the stream's last id is the position that comes
next: who adds needs no other memory of how far it is. Redis takes no id a second time and none
below the last one, and a script adds nothing where the last id is not the expected one. So each
event is in the stream once and in order, whoever adds and whatever is killed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import redis

from ingest import crash
from ingest.keys import events_stream

_LAST = """
local last = '0-0'
if redis.call('EXISTS', KEYS[1]) == 1 then
  local about = redis.call('XINFO', 'STREAM', KEYS[1])
  for i = 1, #about, 2 do
    if about[i] == 'last-generated-id' then last = about[i + 1] end
  end
end
"""

_ASK = f"{_LAST} return last"

_ADD = f"""{_LAST}
if last ~= ARGV[1] then return last end
for i = 3, #ARGV, 2 do
  redis.call('XADD', KEYS[1], ARGV[i], 'event', ARGV[i + 1])
end
redis.call('XTRIM', KEYS[1], 'MAXLEN', ARGV[2])
return ARGV[#ARGV - 1]
"""

Numbered: TypeAlias = tuple[int, bytes]
"""An event's position, and what the stream holds of it."""


class EventStream:
    """The stream of one partition. Methods raise redis-py's errors."""

    def __init__(self, client: redis.Redis, domain: str, partition: int, events_max: int) -> None:
        """It keeps the newest `events_max` events."""
        self.key = events_stream(domain, partition)
        self._client: Any = client
        self._events_max = events_max

    def end(self) -> tuple[int, bytes | None]:
        """The position after the last event that was ever added, 0 where Redis knows of none; and
        that event, where the stream still has it.
        """
        last_id = self._client.eval(_ASK, 1, self.key)
        found = self._client.xrange(self.key, last_id, last_id)
        return _position(last_id), found[0][1].get(b"event") if found else None

    def add(self, next_position: int, events: Sequence[Numbered]) -> bool:
        """Add events; none, and False, where the stream's next position is another one."""
        words: list[Any] = [_id(next_position), self._events_max]
        for position, event in events:
            words += (_id(position + 1), event)
        crash.point("event_stream.to_add")
        last = self._client.eval(_ADD, 1, self.key, *words)
        crash.point("event_stream.added")
        return bool(_position(last) == events[-1][0] + 1)


def _id(next_position: int) -> str:
    return f"{next_position}-0"


def _position(last_id: bytes) -> int:
    return int(last_id.partition(b"-")[0])
