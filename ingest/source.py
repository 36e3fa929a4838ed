"""The Bytewax source of the write side: each worker reads its share of the streams."""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Protocol

from bytewax.inputs import DynamicSource, StatelessSourcePartition

from ingest import crash
from ingest.entries import Batch
from ingest.reader import StreamReader
from ingest.stop import Stop

WAIT_MAX_S = 0.05
"""An idle worker looks this often whether it is to stop, or has to connect."""


class Share(Protocol):
    """The partitions of one worker, as its source sees them."""

    def readers(self) -> Sequence[tuple[int, StreamReader]]:
        """Those that are to be read now; the first call opens them."""
        ...

    def waits(self, number: int) -> bool:
        """Whether a partition has something to decide that is in no stream."""
        ...

    @property
    def pause_s(self) -> float:
        """How long it may be until it is asked so again."""
        ...


class _CommandPart(StatelessSourcePartition[Batch]):
    def __init__(self, share: Share, stop: Stop) -> None:
        self._share = share
        self._stop = stop
        self._turn = 0

    def next_batch(self) -> list[Batch]:
        """One batch of the partition that has waited longest, or none."""
        if self._stop.requested or self._stop.error is not None:
            raise StopIteration
        try:
            return self._poll()
        except BaseException as error:
            self._stop.failed(error)
            raise StopIteration from None

    def _poll(self) -> list[Batch]:
        readers = self._share.readers()
        for _ in readers:
            self._turn += 1
            partition, reader = readers[self._turn % len(readers)]
            entries = reader.poll()
            if entries or self._share.waits(partition):
                crash.point("read.batch")
                return [Batch(partition, entries)]
        _wait([reader for _, reader in readers], min(WAIT_MAX_S, self._share.pause_s))
        return []

    def next_awake(self) -> datetime:
        """At once: it waits by itself, since the engine's own waiting wakes a thousand times."""
        return datetime.now(UTC)


def _wait(readers: Sequence[StreamReader], most_s: float) -> None:
    """Until an answer of Redis has come, a reader has something to do, or `most_s` is over."""
    now = time.monotonic()
    due = min((reader.due_at for reader in readers), default=now + most_s)
    sockets = [socket for reader in readers for socket in reader.sockets]
    seconds = max(0.0, min(most_s, due - now))
    if sockets:
        select.select(sockets, [], [], seconds)
    else:
        time.sleep(seconds)


class CommandSource(DynamicSource[Batch]):
    """Reads the partitions of a share; several workers of one cluster divide it among them.

    `open_share(worker, workers)` gives what worker `worker` of so many reads. Where to resume is in
    the log.
    """

    def __init__(self, open_share: Callable[[int, int], Share], stop: Stop) -> None:
        self._open_share = open_share
        self._stop = stop

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _CommandPart:
        """What Bytewax calls once in each worker."""
        return _CommandPart(self._open_share(worker_index, worker_count), self._stop)
