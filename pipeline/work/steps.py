"""The steps of the write side, and what they remember."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence

from ingest.entries import Batch
from ingest.errors import DomainFailed, Superseded
from ingest.halted import tell_halted
from ingest.reader import StreamReader
from ingest.stop import Stop
from pipeline.decide.outcomes import Window
from pipeline.decide.partition import Decided, Partition
from pipeline.decide.sends import Send, due_at
from pipeline.deployment import Deployment
from pipeline.engine import metrics
from pipeline.engine.garbage import collect_when_due
from pipeline.engine.program import ready
from pipeline.log.schemas import Schemas
from pipeline.react.inbox import Inbox
from pipeline.replay.committed import comparison
from pipeline.replay.restore import restore
from projections.held import positions_in

logger = logging.getLogger("foldlog")


TRY_AGAIN_S = 10.0
"""After another worker has taken a partition over."""


LOOK_S = 0.5
"""How often it is seen how far readers are behind, where that matters."""


class Worker:
    """The steps, and what they remember: the partitions of a share, each with its reader."""

    def __init__(self, deployed: Deployment, share: Sequence[int], run: str) -> None:
        """`run` names this worker to those that would work on the same partitions."""
        self._run = run
        self._settings = settings = deployed.settings
        self._domain = deployed.domain
        self._log = log = deployed.log
        self._share = share
        self._schemas = Schemas(self._domain, log)
        self._decider = deployed.decider()
        self._snapshots = deployed.snapshots(settings.snapshots)
        self._window = Window(
            us=round(settings.dedupe_window_s * 1e6),
            rows=settings.dedupe_rows_max // log.partitions,
        )
        # What was sent before its policy was removed is handled, too.
        sends = self._domain.policies or any(log.tail(p).inputs.sent for p in range(log.partitions))
        self._inbox = Inbox(log) if sends else None
        self._owned: dict[int, Partition] = {}
        self._readers: dict[int, StreamReader] = {}
        self._halted: dict[int, StreamReader] = {}
        """Those whose last batch is committed in part, and not answered yet."""
        self._open_at: dict[int, float] = {}
        """Partitions that wait to be opened, and when that is due, by `time.monotonic`."""
        self._waits = False
        self._look_at = 0.0
        self._reading: Sequence[tuple[int, StreamReader]] = []

    def take(self, index: int, count: int) -> Worker:
        """What Bytewax process `index` of `count` owns of the share."""
        self._open_at = dict.fromkeys(self._share[index::count], 0.0)
        return self

    def readers(self) -> Sequence[tuple[int, StreamReader]]:
        """The partitions that are read now; those that were lost are opened again in time."""
        if self._open_at:
            now = time.monotonic()
            for number in [p for p, due in self._open_at.items() if due <= now]:
                self._open(number)
                del self._open_at[number]
            ready()
            self._reading = [*self._readers.items()]
        if self._inbox is not None:
            self._inbox.look()
        return [] if self._readers_are_behind() else self._reading

    def waits(self, number: int) -> bool:
        """Whether the partition has something to decide that is in no stream."""
        if number not in self._readers:
            return False
        due_us = self._owned[number].deadlines.next_us
        if due_us is not None and due_us <= self._now_us(number):
            return True
        return self._inbox is not None and self._inbox.waits(number)

    @property
    def pause_s(self) -> float:
        """How long it may be until it is asked what `waits`."""
        return math.inf if self._inbox is None else self._inbox.pause_s

    def _now_us(self, number: int) -> int:
        """By Redis's clock, and never before the partition's last row; this host's may be off."""
        return max(self._readers[number].clock.now_us or 0, self._owned[number].recorded_us)

    def _sent_to(self, owned: Partition) -> list[Send]:
        """What waits for a partition in no stream: deadlines that are due, then sends."""
        most, now_us = self._settings.batch_max, self._now_us(owned.number)
        due = [due_at(send, now_us) for send in owned.deadlines.due(now_us, most)]
        return due if self._inbox is None else due + self._inbox.take(owned.number, most - len(due))

    def _readers_are_behind(self) -> bool:
        """Whether to wait for the read side; only where a setting says so. Looked up now and then.

        It goes by the published file, and so holds for a read side that is gone, too.
        """
        most = self._settings.behind_rows_max
        if most and time.monotonic() >= self._look_at:
            held = positions_in(self._settings.published)
            missing = sum(p.next_position - held.get(n, 0) for n, p in self._owned.items())
            if (missing > most) is not self._waits:
                self._waits = not self._waits
                logger.info(
                    "waiting for the read side, which is %d rows behind" if self._waits
                    else "going on: the read side is %d rows behind", missing,
                )  # fmt: skip
            self._look_at = time.monotonic() + LOOK_S
        return self._waits

    def _open(self, number: int) -> None:
        settings = self._settings
        try:
            owned = restore(
                self._domain, self._log, number, self._window,
                self._snapshots.open(number), self._snapshots.reached,
            )  # fmt: skip
        except DomainFailed as error:
            self._snapshots.drop(number)
            self._tell_halted(number, error)
            return
        if self._inbox is not None:
            self._inbox.open(owned)
        self._owned[number] = owned
        self._readers[number] = StreamReader(
            settings.reachable_redis,
            self._domain.name,
            number,
            owned.inputs.stream_id,
            partitions=self._log.partitions,
            batch_max=settings.batch_max,
            linger_ms=settings.linger_ms,
            compare=comparison(self._log, number, self._decider, owned),
        )

    def decide(self, batch: Batch) -> Decided | None:
        """What a batch comes to. The partition moves on at once, before the commit.

        That is safe: where the commit fails, what the partition remembers is thrown away with it.
        """
        owned = self._owned.get(batch.partition)
        if owned is None or batch.partition not in self._readers:
            return None  # it is lost, or halted, and the batch was on its way
        sends = self._sent_to(owned)
        try:
            decided = self._decider.decide(owned, batch, sends)
        except DomainFailed as error:
            self._tell_halted(batch.partition, error)
            failed = next((i for i, s in enumerate(sends) if s.source == error.stream_id), None)
            before = batch.before(error.stream_id if failed is None else None)
            decided = self._decider.decide(owned, before, sends[:failed])
            self._halted[batch.partition] = self._readers.pop(batch.partition)
            self._reading = [*self._readers.items()]
        owned.apply(decided)
        metrics.decided(batch.partition, len(batch.entries) + len(sends), decided.not_accepted)
        return decided

    def _tell_halted(self, number: int, error: DomainFailed) -> None:
        """A partition is read no more until the code is mended and started; the others go on."""
        logger.error("partition %s is halted, the others go on: %s", number, error)
        tell_halted(self._settings.reachable_redis, self._domain.name, number, str(error))

    def commit(self, decided: Decided) -> Decided | None:
        """Write a batch to the log, durably; None where the partition is not this worker's."""
        owned = decided.owner
        if owned is not self._owned.get(owned.number):
            return None  # it was decided before the partition was lost
        if len(decided.rows):
            self._schemas.note(decided.rows)
            try:
                with metrics.COMMIT.time():
                    self._log.append(
                        owned.number, decided.first, decided.rows, self._run, decided.inputs
                    )
            except Superseded as error:
                self._lose(owned.number, error)
                return None
            self._snapshots.committed(owned, decided.first + len(decided.rows))
            if self._inbox is not None:
                self._inbox.committed(decided)
        collect_when_due()
        return decided

    def reply(self, decided: Decided) -> None:
        """Tell the senders their outcomes, and let go of the entries that have them in the log."""
        number = decided.owner.number
        if number in self._readers and decided.entries:
            self._readers[number].respond(decided.replies)
        elif number in self._halted:
            self._halted.pop(number).respond_in_part(decided.replies)

    def _lose(self, number: int, error: Superseded) -> None:
        """Let go of a partition in which another worker has committed, and look again later."""
        logger.warning("%s; trying again in %.0f s", error, TRY_AGAIN_S)
        del self._owned[number]
        for readers in (self._readers, self._halted):
            if number in readers:
                readers.pop(number).abandon()
        self._snapshots.drop(number)
        if self._inbox is not None:
            self._inbox.close(number)
        self._open_at[number] = time.monotonic() + TRY_AGAIN_S

    def close(self, stop: Stop) -> None:
        """Called when everything has been handled: take the last snapshots, if nothing failed."""
        for reader in self._readers.values():
            reader.close()
        if stop.error is None:
            self._snapshots.close()
