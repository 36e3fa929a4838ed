"""Scripts that Redis runs: an entry leaves a stream in the step that finds it is still the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import redis

from ingest.line import Words, checked

_HOLDS = """
local function holds(at)  -- whether the entry of that id has the fields that follow in ARGV
  local entry, length = redis.call('XRANGE', KEYS[1], ARGV[at], ARGV[at])[1], tonumber(ARGV[at + 1])
  if not entry or #entry[2] ~= length then return false end
  for i = 1, length do
    if entry[2][i] ~= ARGV[at + 1 + i] then return false end
  end
  return true
end
"""

TRIM = f"""{_HOLDS}
local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
if not first or first[1] ~= ARGV[1] then return 0 end
local at = 3
while at <= #ARGV do
  if not holds(at) then return 0 end
  at = at + 2 + ARGV[at + 1]
end
redis.call('XTRIM', KEYS[1], 'MINID', '=', ARGV[2])
return 1
"""

SIFT = f"""{_HOLDS}
local at = 1
while at <= #ARGV do
  local moved, length = ARGV[at], tonumber(ARGV[at + 2])
  if not holds(at + 1) then return 0 end
  if moved ~= '' then  -- Lua passes on so many values; an entry of more is hardly a command
    local upto = at + 2 + math.min(length, 6000)
    redis.call('XADD', KEYS[2], moved, unpack(ARGV, at + 3, upto))
  end
  redis.call('XDEL', KEYS[1], ARGV[at + 1])
  at = at + 3 + length
end
return 1
"""


class Changed(redis.RedisError):
    """The stream is not the one that was read: it has to be joined anew."""


def script(text: str, keys: Sequence[str], arguments: Sequence[Any]) -> Words:
    """The command that runs a script."""
    return "EVAL", text, len(keys), *keys, *arguments


def acted(stream: str, answer: Any) -> None:
    """Raises an error that a script answered, and `Changed` where it found something else."""
    if checked([answer]) != [1]:
        raise Changed(f"{stream} is not the one that was read")
