"""Joining a stream, and letting go of its entries: none leaves before the log has its outcome.

Redis may come back behind the log: emptied, rolled back to an older copy, replaced by a replica
that lacks the tail; with a clock behind or ahead; with the connection lost, or without a sign. Its
producers go on at once, so it gives out ids anew that the log has passed. Therefore what stands in
a stream and is not in the log is still to be done, whatever its id.

Two entries are the same if they have the same id and say the same. A stream's ids only grow, so a
server that holds an entry has the same entries before it as any other that ever held it. Upon this
rest the two steps of a partition's reader, which has read and committed all up to `last_id`:

join    With each new connection, when all that was read is committed. Whatever stands at or below
        `last_id` is compared with the log. What the log has is removed, entry by entry. What it has
        not moves to the stream `behind`, in order, to ids just above `last_id`, and is read first;
        so the log's stream ids keep growing, and what was sent first is handled first. Before that,
        the stream's own ids are raised above those, so that none can be added below any more.
trim    After a batch is committed, and only if the stream still begins with the batch's first entry
        and holds its last one: then everything up to there is the batch, and goes. If not, this is
        another stream than the one that was read: join it anew.

Each read, also one that finds nothing for a second, says with what the streams begin. Where that is
at or below `last_id` and was not just read, it was passed over: nothing of the read is handled, and
the stream is joined anew.

What was seen has to hold when it is acted upon. `behind` exists always, and only joining writes to
it, so it is what `Line` watches: if the data is emptied, rolled back or replaced in between, or
another worker joins, the transaction does nothing; if the connection goes, there is none. The
stream itself cannot be watched: with busy producers it would never be still.

A kill between any two of these steps is a join: each transaction removes entries that the log has,
or moves some from one stream to the other.
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
from ingest.streams import Entry, entry_of

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

SEQUENCE_MAX = 2**64 - 1

_FULL = "equal or smaller"
"""Redis' answer to an id that is not above the stream's last one."""


class Changed(redis.RedisError):
    """The data under a connection is not what it was: the stream has to be joined anew."""


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
    """One connection, and a key on it that is watched between a look and an act.

    Commands are sent at once; `receive` hands each one's answers to whoever waits for them.
    """

    def __init__(self, connection: Any, guard: str) -> None:
        self.connection = connection
        self._guard = guard
        self._expected: deque[tuple[int, float, Callable[[list[Any]], None]]] = deque()

    def send(self, commands: Sequence[Words], then: Callable[[list[Any]], None]) -> None:
        """`then` is called with the answers; an error is an answer.

        Raises what redis-py does while Redis is away, as all methods do.
        """
        self.connection.send_packed_command(self.connection.pack_commands(commands))
        self._expected.append((len(commands), time.monotonic(), then))

    @property
    def waits(self) -> bool:
        """Whether Redis owes an answer."""
        return bool(self._expected)

    def receive(self, *, wait: bool = False) -> None:
        """Hand over the answers that are there, or all. Raises what that raises."""
        while self._expected:
            count, sent_at, then = self._expected[0]
            if not wait and count and not self.connection.can_read():
                if time.monotonic() > sent_at + ANSWER_S:
                    raise redis.TimeoutError(f"no answer for {time.monotonic() - sent_at:.0f} s")
                return
            answers = [self._answer() for _ in range(count)]
            self._expected.popleft()
            then(answers)

    def _answer(self) -> Any:
        try:
            return self.connection.read_response(disable_decoding=True)
        except ResponseError as error:
            return error

    def ask(self, *commands: Words) -> list[Any]:
        """The answers. Raises the first error among them."""
        answers: list[Any] = []
        self.send(commands, answers.extend)
        self.receive(wait=True)
        return checked(answers)

    def look(self, *commands: Words, then: Callable[[list[Any]], None]) -> None:
        """`then` is called with the answers, None where there is no such key; it may `act`.

        `receive` raises the first other error, or `Changed`.
        """

        def seen(answers: list[Any]) -> None:
            _, exists, *shown = checked(answers, but="no such key")
            if not exists:
                raise Changed(f"{self._guard} is gone")
            then(shown)

        self.send((("WATCH", self._guard), ("EXISTS", self._guard), *commands), seen)

    def seen(self, *commands: Words) -> list[Any]:
        """What a look shows."""
        answers: list[Any] = []
        self.look(*commands, then=answers.extend)
        self.receive(wait=True)
        return answers

    def act(
        self,
        *commands: Words,
        but: str | None = None,
        then: Callable[[], None] | None = None,
    ) -> None:
        """Do all of the commands, if what the last look saw still holds; else raise `Changed`.

        Raises an error of theirs, but those that say so. With `then`, it is `receive` that raises.
        """

        def acted(answers: list[Any]) -> None:
            done = checked(answers)[-1]
            if done is None:
                raise Changed("it was emptied, rolled back or replaced")
            checked(done, but=but)
            if then is not None:
                then()

        self.send((("MULTI",), *commands, ("EXEC",)), acted)
        if then is None:
            self.receive(wait=True)


def checked(answers: Sequence[Any], but: str | None = None) -> list[Any]:
    """The answers, None for an error that says `but`. Raises the first other one."""
    for answer in answers:
        if isinstance(answer, ResponseError) and (but is None or but not in str(answer)):
            raise answer
    return [None if isinstance(answer, ResponseError) else answer for answer in answers]


def join(line: Line, stream: str, behind: str, last_id: str, compare: Compare) -> Joined:
    """Make of a stream one that holds above `last_id`, or in `behind`, what is still to be done.

    Everything up to `last_id` that was read must be in the log; `line` watches `behind`.
    """
    # A replica refuses any write, and its entries are another server's to keep.
    exists, _ = line.ask(("EXISTS", behind), ("XTRIM", behind, "MINID", "=", "0"))
    if not exists:
        line.ask(("XADD", behind, "MAXLEN", "0", "0-1", "made", ""))
    infos = line.seen(("XINFO", "STREAM", stream), ("XINFO", "STREAM", behind))
    ended, filled_to = _last_generated_id(infos[0]), _last_generated_id(infos[1])
    went_back = as_numbers(ended) < as_numbers(last_id)
    mend = _Mend(line, behind, compare, last_id, max(last_id, filled_to, key=as_numbers))
    moved_before = infos[1] is not None and infos[1][infos[1].index(b"length") + 1] > 0
    if went_back or moved_before:
        mend.raise_ids(stream)
    mend.sift(behind, last_id)
    mend.sift(stream, mend.ceiling if moved_before else last_id)
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
        self, line: Line, behind: str, compare: Compare, last_id: str, taken_to: str
    ) -> None:
        self._line = line
        self._behind = behind
        self._compare = compare
        self._last = as_numbers(last_id)
        milliseconds, sequence = as_numbers(next_id(taken_to))
        self._free = (f"{milliseconds}-{n}" for n in count(sequence))
        self.ceiling = f"{milliseconds}-{SEQUENCE_MAX}"
        """Above all ids that moved entries are given; no server gives it out by itself."""
        self.passed_over = 0

    def raise_ids(self, stream: str) -> None:
        """Let the stream's ids go on above the `ceiling`: what stands below it is then all."""
        raised = ("XADD", stream, self.ceiling, "raised", ""), ("XDEL", stream, self.ceiling)
        crash.point("rejoin.to_raise")
        self._line.act(*raised, but=_FULL)
        crash.point("rejoin.raised")

    def sift(self, stream: str, until: str) -> None:
        """Of a stream's entries up to an id, remove those that the log has and move the others."""
        while True:
            (found,) = self._line.seen(("XRANGE", stream, "-", until, "COUNT", PAGE))
            if not found:
                return
            standing = self._compare([entry_of(*entry) for entry in found])
            if stream != self._behind and until != self.ceiling and {*standing} != {"committed"}:
                # What follows in the same millisecond moves as well, so as not to be overtaken.
                self.raise_ids(stream)
                until = self.ceiling
                continue
            moves = []
            for (stream_id, fields), of in zip(found, standing, strict=True):
                if of != "committed":
                    moves.append(("XADD", self._behind, next(self._free), *fields))
                below = as_numbers(stream_id.decode()) <= self._last
                self.passed_over += of == "new" and below
            crash.point("rejoin.to_send")
            self._line.act(*moves, ("XDEL", stream, *(stream_id for stream_id, _ in found)))
            crash.point("rejoin.sent")


def trim(line: Line, batches: Sequence[Read], then: Callable[[], None]) -> None:
    """Let go of batches of one stream, one after another in it, that the log has; then call `then`.

    `Line.receive` raises `Changed` where the stream is not the one that was read; nothing goes.
    """
    stream = batches[0].stream

    def let_go(seen: list[Any]) -> None:
        begins, *ends = seen
        whole = begins and begins[0][0] == batches[0].first_id
        if not whole or ends != [[[batch.last_id, batch.last_fields]] for batch in batches]:
            raise Changed(f"{stream} is not the one that was read")
        after = next_id(batches[-1].last_id.decode())
        crash.point("trim.to_send")
        line.act(("XTRIM", stream, "MINID", "=", after), then=then)
        crash.point("trim.sent")

    lasts = [("XRANGE", stream, batch.last_id, batch.last_id) for batch in batches]
    line.look(("XRANGE", stream, "-", "+", "COUNT", 1), *lasts, then=let_go)


def waiting(client: redis.Redis, stream: str, behind: str, last_id: str, compare: Compare) -> int:
    """How many entries the log has not committed yet. Raises what redis-py does."""
    connection = client.connection_pool.get_connection()
    try:
        line, entries = Line(connection, behind), 0
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


def as_numbers(stream_id: str) -> tuple[int, int]:
    milliseconds, _, sequence = stream_id.partition("-")
    return int(milliseconds), int(sequence)


def next_id(stream_id: str) -> str:
    """The lowest id above another."""
    milliseconds, sequence = as_numbers(stream_id)
    return f"{milliseconds}-{sequence + 1}" if sequence < SEQUENCE_MAX else f"{milliseconds + 1}-0"
