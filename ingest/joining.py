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

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import redis

from ingest import crash
from ingest.entries import Compare, entry_of
from ingest.line import Line
from ingest.repair import Repair
from ingest.scripts import TRIM, acted, script
from ingest.stream_id import as_numbers, next_id


@dataclass(frozen=True, slots=True)
class Read:
    """A batch that was read: where, its first entry's id, its last entry."""

    stream: str
    first_id: bytes
    last_id: bytes
    last_fields: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class Joined:
    """What `join` has found, and left."""

    behind: bool
    """Whether there are entries in `behind`, to be read first."""
    mended: str | None
    """What was wrong, for people; None where nothing was."""


def join(line: Line, stream: str, behind: str, last_id: str, compare: Compare) -> Joined:
    """Make of a stream one that holds above `last_id`, or in `behind`, what is still to be done.

    Everything up to `last_id` that was read must be in the log.
    """
    # A replica refuses any write, and its entries are another server's to keep.
    line.ask(("XTRIM", behind, "MINID", "=", "0"))
    infos = line.ask(("XINFO", "STREAM", stream), ("XINFO", "STREAM", behind), but="no such key")
    ended, filled_to = map(_last_generated_id, infos)
    went_back = as_numbers(ended) < as_numbers(last_id)
    repair = Repair(line, stream, behind, compare, last_id, max(last_id, filled_to, key=as_numbers))
    if went_back:
        repair.raise_ids()
    repair.sift(behind, last_id)
    (left,) = line.ask(("XLEN", behind))
    if left:
        repair.raise_ids()
    repair.sift(stream, repair.ceiling if left else last_id)
    (left,) = line.ask(("XLEN", behind))
    return Joined(left > 0, _told(stream, ended, last_id, went_back, repair.passed_over))


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


def trim(line: Line, batches: Sequence[Read], then: Callable[[], None]) -> None:
    """Let go of batches of one stream, one after another in it, that the log has; then call `then`.

    `line.receive` raises `Changed`, and nothing goes, where the stream is another.
    """
    stream = batches[0].stream
    arguments: list[Any] = [batches[0].first_id, next_id(batches[-1].last_id.decode())]
    for batch in batches:
        arguments += (batch.last_id, len(batch.last_fields), *batch.last_fields)

    def trimmed(answers: list[Any]) -> None:
        acted(stream, *answers)
        then()

    crash.point("trim.to_send")
    line.send([script(TRIM, (stream,), arguments)], trimmed)
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
