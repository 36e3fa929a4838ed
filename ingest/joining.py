"""Joining a stream, and letting go of its entries: none leaves before the log has its outcome.

Redis may come back behind the log: emptied, rolled back to an older copy, replaced by a replica
that lacks the tail; with a clock behind or ahead; with the connection lost, or without a sign. Its
producers go on at once, so it gives out ids anew that the log has passed. Therefore what stands in
a stream and is not in the log is still to be done, whatever its id.

Two entries are the same if they have the same id and say the same. A stream's ids only grow, so a
server that holds an entry has the same entries before it as any other that ever held it. Upon this
rest the steps of a partition's reader, which has read and committed all up to `last_id`:

join    With each new connection, when all that was read is committed. Whatever stands at or below
        `last_id` is compared with the log. What the log has is removed, entry by entry. What it has
        not moves to the stream `behind`, in order, to ids just above `last_id`, and is read first;
        so the log's stream ids keep growing, and what was sent first is handled first. Before that,
        the stream's own ids are raised above those, so that none can be added below any more.
read    Each answer, also one that finds nothing for a second, says with what the streams begin.
        Where that is at or below `last_id` and was not just read, it was passed over: nothing of
        the answer is handled, and the stream is joined anew.
trim    After a batch is committed, and only if the stream still begins with the batch's first entry
        and holds its last one: then everything up to there is the batch, and goes. If not, this is
        another stream than the one that was read: nothing goes, and it is joined anew.

An entry is compared and removed in one step, by a script on the server, so nothing comes between;
a producer may add meanwhile what it likes. (A transaction cannot do it: the stream is never still
enough to be watched, and a full Redis refuses transactions, also those that would make room.)

A kill at any point is followed by a join: each step removes entries that the log has, or moves
one from one stream to the other.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal, TypeAlias

import redis
from redis.exceptions import ResponseError

from ingest import crash
from ingest.entries import Entry, entry_of
from ingest.stream_id import SEQUENCE_MAX, as_numbers, next_id

Words: TypeAlias = Sequence[Any]
"""A command to Redis and its arguments."""

Standing: TypeAlias = Literal["committed", "duplicate", "new"]
"""Of an entry: the log has it; it has only the same command from an earlier entry; it has neither.

Both of the latter are read again, a duplicate so that its sender is told.
"""

Compare: TypeAlias = Callable[[Sequence[Entry]], Sequence[Standing]]
"""Looks up entries in the log."""

ANSWER_S = 5.0
"""A Redis that takes longer to answer is away."""

PAGE = 1000
"""Entries that are compared, removed or moved at a time."""


_FULL = "equal or smaller"
"""Redis' answer to an id that is not above the stream's last one."""

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

_TRIM = f"""{_HOLDS}
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

_SIFT = f"""{_HOLDS}
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


@dataclass(frozen=True, slots=True)
class Read:
    """A batch that was read: where, its first entry's id, its last entry."""

    stream: str
    first_id: bytes
    last_id: bytes
    last_fields: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class Joined:
    behind: bool
    """Whether there are entries in `behind`, to be read first."""
    mended: str | None
    """What was wrong, for people; None where nothing was."""


class Line:
    """A connection on which commands are sent at once, and their answers handed on as they come.

    All methods raise what redis-py does while Redis is away.
    """

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self._expected: deque[tuple[int, float, Callable[[list[Any]], None]]] = deque()

    def send(self, commands: Sequence[Words], then: Callable[[list[Any]], None]) -> None:
        """`then` is called with the answers, by `receive`; an error is an answer."""
        self.connection.send_packed_command(self.connection.pack_commands(commands))
        self._expected.append((len(commands), time.monotonic(), then))

    @property
    def waits(self) -> bool:
        """Whether Redis owes an answer."""
        return bool(self._expected)

    def receive(self, *, wait: bool = False) -> None:
        """Hand on the answers that are there, or all. Raises what those raise that take them."""
        while self._expected:
            length, sent_at, then = self._expected[0]
            if not wait and length and not self.connection.can_read():
                if time.monotonic() > sent_at + ANSWER_S:
                    raise redis.TimeoutError(f"no answer for {ANSWER_S:g} s")
                return
            answers = [self._answer() for _ in range(length)]
            self._expected.popleft()
            then(answers)

    def _answer(self) -> Any:
        try:
            return self.connection.read_response(disable_decoding=True)
        except ResponseError as error:
            return error

    def ask(self, *commands: Words, but: str | None = None) -> list[Any]:
        """The answers, None for an error that says `but`. Raises the first other error."""
        answers: list[Any] = []
        self.send(commands, answers.extend)
        self.receive(wait=True)
        return checked(answers, but)


def checked(answers: Sequence[Any], but: str | None = None) -> list[Any]:
    """The answers, None for an error that says `but`. Raises the first other error."""
    for answer in answers:
        if isinstance(answer, ResponseError) and (but is None or but not in str(answer)):
            raise answer
    return [None if isinstance(answer, ResponseError) else answer for answer in answers]


def _script(text: str, keys: Sequence[str], arguments: Sequence[Any]) -> Words:
    return "EVAL", text, len(keys), *keys, *arguments


def _acted(stream: str, answer: Any) -> None:
    """Raises an error that a script answered, and `Changed` where it found something else."""
    if checked([answer]) != [1]:
        raise Changed(f"{stream} is not the one that was read")


def join(line: Line, stream: str, behind: str, last_id: str, compare: Compare) -> Joined:
    """Make of a stream one that holds above `last_id`, or in `behind`, what is still to be done.

    Everything up to `last_id` that was read must be in the log.
    """
    # A replica refuses any write, and its entries are another server's to keep.
    line.ask(("XTRIM", behind, "MINID", "=", "0"))
    infos = line.ask(("XINFO", "STREAM", stream), ("XINFO", "STREAM", behind), but="no such key")
    ended, filled_to = map(_last_generated_id, infos)
    went_back = as_numbers(ended) < as_numbers(last_id)
    mend = _Mend(line, stream, behind, compare, last_id, max(last_id, filled_to, key=as_numbers))
    if went_back:
        mend.raise_ids()
    mend.sift(behind, last_id)
    (left,) = line.ask(("XLEN", behind))
    if left:
        mend.raise_ids()
    mend.sift(stream, mend.ceiling if left else last_id)
    (left,) = line.ask(("XLEN", behind))
    return Joined(left > 0, _told(stream, ended, last_id, went_back, mend.passed_over))


def _told(stream: str, ended: str, last_id: str, went_back: bool, passed_over: int) -> str | None:
    if went_back:
        return (
            f"{stream} ended at {ended}, before the log's {last_id}: Redis has lost entries that"
            f" the log has; its ids go on after the log's, {passed_over} entries below come first"
        )
    if passed_over:
        return (
            f"{stream} held {passed_over} entries up to the log's last id {last_id} that the log"
            " does not have: Redis has lost entries and given out ids again; they come first"
        )
    return None


class _Mend:
    """One join's work on the entries below the log's last id."""

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
            answer = self._line.ask(_script(_SIFT, (stream, self._behind), arguments))
            crash.point("rejoin.sent")
            _acted(stream, *answer)


def trim(line: Line, batches: Sequence[Read], then: Callable[[], None]) -> None:
    """Let go of batches of one stream, one after another in it, that the log has; then call `then`.

    `line.receive` raises `Changed`, and nothing goes, where the stream is another.
    """
    stream = batches[0].stream
    arguments: list[Any] = [batches[0].first_id, next_id(batches[-1].last_id.decode())]
    for batch in batches:
        arguments += (batch.last_id, len(batch.last_fields), *batch.last_fields)

    def trimmed(answers: list[Any]) -> None:
        _acted(stream, *answers)
        then()

    crash.point("trim.to_send")
    line.send([_script(_TRIM, (stream,), arguments)], trimmed)
    crash.point("trim.sent")


def waiting(client: redis.Redis, stream: str, behind: str, last_id: str, compare: Compare) -> int:
    """How many entries the log has not committed yet. Raises what redis-py does."""
    connection = client.connection_pool.get_connection()
    try:
        line, entries = Line(connection), 0
        for key in (behind, stream):
            length, found = line.ask(("XLEN", key), ("XRANGE", key, "-", last_id))
            standing = compare([entry_of(*entry) for entry in found]) if found else []
            entries += max(0, length - standing.count("committed"))
        return entries
    finally:
        client.connection_pool.release(connection)


def _last_generated_id(info: list[Any] | None) -> str:
    if info is None:  # there is no such stream
        return "0-0"
    found: str = info[info.index(b"last-generated-id") + 1].decode()
    return found
