"""The Bytewax source: each worker reads its share of the streams. Adapter code only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from bytewax.inputs import DynamicSource, StatelessSourcePartition

from ingest import crash
from ingest.streams import Entry, StreamReader


@dataclass
class Stop:
    """How the process ends the dataflow: `requested` after the batch in hand, `failed` at once."""

    requested: bool = False
    error: BaseException | None = None
    at_end: Callable[[], None] = lambda: None
    """Called when everything has been handled."""

    def failed(self, error: BaseException) -> None:
        self.error = error


@dataclass(frozen=True, slots=True)
class Batch:
    """What moves through the dataflow first: entries of one partition's stream, in order."""

    partition: int
    entries: list[Entry]


class _CommandPart(StatelessSourcePartition[Batch]):
    def __init__(self, readers: list[tuple[int, StreamReader]], stop: Stop) -> None:
        self._readers = readers
        self._stop = stop
        # Bytewax builds a sink for its first item, and the read models are to be there at once.
        self._waking = [Batch(partition, []) for partition, _ in readers[:1]]

    def next_batch(self) -> list[Batch]:
        """One batch of the partition that has waited longest, or none. The first is empty."""
        if self._stop.error is not None:
            raise self._stop.error
        if self._stop.requested:
            raise StopIteration
        if self._waking:
            return [self._waking.pop()]
        for turn, (partition, reader) in enumerate(self._readers, 1):
            entries = reader.poll()
            if entries:
                self._readers = self._readers[turn:] + self._readers[:turn]
                crash.point("read.batch")
                return [Batch(partition, entries)]
        return []

    def next_awake(self) -> datetime | None:
        """A worker without partitions has nothing to poll for but the end."""
        return None if self._readers else datetime.now(UTC) + timedelta(milliseconds=50)

    def close(self) -> None:
        for _, reader in self._readers:
            reader.close()


class CommandSource(DynamicSource[Batch]):
    """Worker `i` of `n` reads partitions i, i + n, i + 2n … Where to resume is in the log."""

    def __init__(
        self, partitions: int, open_reader: Callable[[int], StreamReader], stop: Stop
    ) -> None:
        self._partitions = partitions
        self._open_reader = open_reader
        self._stop = stop

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _CommandPart:
        mine = range(worker_index, self._partitions, worker_count)
        return _CommandPart([(p, self._open_reader(p)) for p in mine], self._stop)
