"""The Bytewax source: each worker reads its share of the streams. Adapter code only."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from bytewax.inputs import DynamicSource, StatelessSourcePartition

from ingest import crash
from ingest.errors import DomainFailed
from ingest.reader import StreamReader
from ingest.streams import Entry

logger = logging.getLogger("foldlog")


@dataclass
class Stop:
    """How the process ends the dataflow: `requested` after the batch in hand, `failed` at once."""

    requested: bool = False
    error: BaseException | None = None
    halted: dict[int, DomainFailed] = field(default_factory=dict)
    """Partitions that are read no more, since the domain's code fails on their next command."""
    at_end: Callable[[], None] = lambda: None
    """Called when everything has been handled."""
    on_halt: Callable[[int, str], None] = lambda *_: None
    """Called with a partition that is halted, and why."""

    def failed(self, error: BaseException) -> None:
        self.error = error

    def halt(self, partition: int, error: DomainFailed) -> None:
        """Let its commands wait until the code is mended and started again; the others go on."""
        self.halted[partition] = error
        logger.error("partition %s is halted, the others go on: %s", partition, error)
        self.on_halt(partition, str(error))


@dataclass(frozen=True, slots=True)
class Batch:
    """What moves through the dataflow first: entries of one partition's stream, in order."""

    partition: int
    entries: list[Entry]

    def before(self, stream_id: str | None) -> Batch:
        """Its entries before one of them."""
        ids = [entry[0].decode() for entry in self.entries]
        end = ids.index(stream_id) if stream_id in ids else 0
        return Batch(self.partition, self.entries[:end])


class _CommandPart(StatelessSourcePartition[Batch]):
    def __init__(self, readers: list[tuple[int, StreamReader]], stop: Stop, *, alone: bool) -> None:
        """`alone` is whether no other worker has partitions that could go on."""
        self._readers = readers
        self._stop = stop
        self._alone = alone
        # Bytewax builds a sink for its first item, and the read models are to be there at once.
        self._waking = [Batch(partition, []) for partition, _ in readers[:1]]

    def next_batch(self) -> list[Batch]:
        """One batch of the partition that has waited longest, or none. The first is empty."""
        if self._stop.error is not None:
            raise self._stop.error
        if self._stop.requested:
            raise StopIteration
        if self._stop.halted:
            self._let_go()
        if self._waking:
            return [self._waking.pop()]
        for turn, (partition, reader) in enumerate(self._readers, 1):
            entries = reader.poll()
            if entries:
                self._readers = self._readers[turn:] + self._readers[:turn]
                crash.point("read.batch")
                return [Batch(partition, entries)]
        return []

    def _let_go(self) -> None:
        """Read no more of what is halted; a worker that has nothing else to read ends."""
        halted = [reader for partition, reader in self._readers if partition in self._stop.halted]
        for reader in halted:
            reader.close()
        self._readers = [(p, reader) for p, reader in self._readers if reader not in halted]
        if not self._readers and self._alone:
            self._stop.error = next(iter(self._stop.halted.values()))
            raise StopIteration

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
        readers = []
        for partition in range(worker_index, self._partitions, worker_count):
            try:
                readers.append((partition, self._open_reader(partition)))
            except DomainFailed as error:
                self._stop.halt(partition, error)
        return _CommandPart(readers, self._stop, alone=worker_count == 1)
