"""What was sent to the partitions of a worker, and is not handled yet: pulled from every log.

Sends of a partition of the same worker are handed over in memory when they are committed; those of
others are read from their files. Either way it is the position that counts, so what is handed over
may be lost, and is read then. Nothing is dropped where a queue is full: the log is the queue.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from ingest import crash
from ingest.durable import fsync_folder
from ingest.errors import LogMismatch
from pipeline.decide.partition import Decided, Partition
from pipeline.decide.sends import COLUMNS, Send, sends_in
from pipeline.log.listings import Listings
from pipeline.log.log import Log
from pipeline.log.names import LogFile
from pipeline.log.tail import end_of

LOOK_S = 0.003
"""From one look at the logs of other workers to the next, while these send."""

QUIET_S = 1.0
"""After so long without anything from them it is looked less often."""

QUIET_LOOK_S = 0.03

QUEUE_MAX = 50_000
"""Sends from one partition to another in memory; what is beyond waits in the log."""


@dataclass(slots=True)
class _Queue:
    """From one partition's log to one partition."""

    read_to: int
    """The position in the log below which all that is sent to it is in `waiting`, or handled."""
    waiting: deque[Send] = field(default_factory=deque)


class Inbox:
    """For the partitions of one worker. `open` one, `look` now and then, and `take` what waits."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._queues: dict[int, dict[int, _Queue]] = {p: {} for p in range(log.partitions)}
        """Partition whose log it is → partition that it is for → queue."""
        self._ends: dict[int, int] = {}
        """Partitions of this worker → where their logs end."""
        self._listings = Listings(log)
        self._look_at = self._found_at = 0.0

    def open(self, partition: Partition) -> None:
        """Begin to follow all logs for it, from its cursors on.

        Raises `LogMismatch` where a log ends below what was read of it: also its own, since what it
        would commit there has been read as something else.
        """
        number = partition.number
        for sender, queues in self._queues.items():
            cursor = partition.inputs.cursors.get(sender, 0)
            tail = self._log.tail(sender)
            if cursor > tail.next_position:
                raise _torn(number, sender, cursor, tail.next_position)
            read = tail.inputs.cursors.get(number, 0)
            if read > partition.next_position:
                end = self._log.tail(number).next_position  # perhaps another writer goes on there
                if read > end:
                    raise _torn(sender, number, read, end)
            nothing = tail.inputs.sent.get(number, -1) < cursor
            queues[number] = _Queue(tail.next_position if nothing else cursor)
            self._listings.again(sender)
        self._ends[number] = partition.next_position

    def close(self, number: int) -> None:
        """The partition is no longer this worker's."""
        self._ends.pop(number, None)
        for queues in self._queues.values():
            queues.pop(number, None)

    def committed(self, decided: Decided) -> None:
        """Hand over what a partition of this worker has sent, now that the log has it."""
        number, end = decided.owner.number, decided.first + len(decided.rows)
        self._ends[number] = end
        for to, queue in self._queues[number].items():
            if queue.read_to == decided.first and len(queue.waiting) < QUEUE_MAX:
                queue.waiting.extend(
                    send for send in decided.sends if send.to_partition == to and not send.due_us
                )
                queue.read_to = end

    def waits(self, number: int) -> bool:
        """Whether something was sent to the partition."""
        return any(queues[number].waiting for queues in self._queues.values() if number in queues)

    def take(self, number: int, most: int) -> list[Send]:
        """What was sent to the partition, at most so many; of each sender in its order.

        Of each as much as of another, as far as it has as much.
        """
        found: list[Send] = []
        senders = sorted((queues[number].waiting for queues in self._queues.values()), key=len)
        for done, waiting in enumerate(senders):
            share = -(-(most - len(found)) // (len(senders) - done))
            found.extend(waiting.popleft() for _ in range(min(share, len(waiting))))
        return found

    @property
    def pause_s(self) -> float:
        """How long it may be until the next `look`."""
        return LOOK_S if time.monotonic() < self._found_at + QUIET_S else QUIET_LOOK_S

    def look(self) -> None:
        """Read what is new in the logs. Cheap where nothing is."""
        now = time.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + LOOK_S
        for sender, queues in self._queues.items():
            if queues and not self._is_read(sender, queues.values()):
                self._read(sender, queues)

    def _is_read(self, sender: int, queues: Iterable[_Queue]) -> bool:
        if sender in self._ends:
            return all(queue.read_to == self._ends[sender] for queue in queues)
        return not self._listings.due(sender)

    def _read(self, sender: int, queues: dict[int, _Queue]) -> None:
        """Fill the queues from the files that they have not read, those that have run low."""
        low = {to: queue for to, queue in queues.items() if len(queue.waiting) <= QUEUE_MAX // 2}
        if len(low) < len(queues):
            self._listings.again(sender)  # the others go on later
        if not low:
            return
        with self._log.reading():
            files = self._log.files(sender, min(queue.read_to for queue in low.values()))
            if files:
                # Its writer may have been killed between the link and the folder's fsync: what is
                # decided here must not rest on a name that a power cut takes away.
                crash.point("follow.to_fsync_folder")
                fsync_folder(self._log.partition_folder(sender))
                crash.point("follow.fsynced")
            full = False
            for file in files:
                if all(queue.read_to < file.first for queue in low.values()):
                    if not full:
                        self._listings.stuck(sender, f"positions are missing before {file.path}")
                    return
                full = not self._read_file(sender, file, low) or full
                if full:
                    self._listings.again(sender)
        self._listings.joined(sender)

    def _read_file(self, sender: int, file: LogFile, queues: dict[int, _Queue]) -> bool:
        """Put a file's sends into the queues that have read all before; False where one is full."""
        tail = end_of(file)
        end = tail.next_position
        behind = {to: q for to, q in queues.items() if file.first <= q.read_to < end}
        if any(tail.inputs.sent.get(to, -1) >= queue.read_to for to, queue in behind.items()):
            self._found_at = time.monotonic()
            for send in sends_in(sender, self._log.read_file(file, COLUMNS)):
                found = behind.get(send.to_partition)
                if found and send.position >= found.read_to and send.due_us is None:
                    if len(found.waiting) >= QUEUE_MAX:
                        found.read_to = send.position
                        del behind[send.to_partition]
                    else:
                        found.waiting.append(send)
        for queue in behind.values():
            queue.read_to = end
        return all(not file.first <= q.read_to < end for q in queues.values())


def _torn(number: int, sender: int, cursor: int, end: int) -> LogMismatch:
    return LogMismatch(
        f"partition {number} has handled what partition {sender} sent it up to position {cursor},"
        f" and the log of partition {sender} ends at {end}: one of them is from another backup;"
        " `foldlog restore` says what would have to go for them to fit"
    )
