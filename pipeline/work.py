"""`foldlog work`: the write side on one screen. Commands in, decided into events, committed.

    commands ──▶ decide ──▶ commit ──▶ replies
     Redis        fold       log        Redis

A worker owns a share of the partitions. It speaks to no other worker and opens no port; what keeps
two that believe in the same partition apart is the log, in which only one gets a file's name.
"""

from __future__ import annotations

import atexit
import gc
import logging
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial

import bytewax.operators as op
from bytewax.dataflow import Dataflow

from ingest.entries import Batch
from ingest.errors import DomainFailed, Superseded
from ingest.halted import tell_halted
from ingest.reader import StreamReader
from ingest.source import CommandSource
from ingest.stop import Stop
from ingest.strays import Watch
from pipeline import metrics
from pipeline.fold import Decided, Fold, Partition
from pipeline.log import Log
from pipeline.outcomes import Window
from pipeline.program import ALL, begun, every, named, ready, run, run_of, share_of
from pipeline.recovery import comparison, restore
from pipeline.schemas import Schemas
from pipeline.settings import Settings
from pipeline.sinks import Each
from pipeline.snapshot import Snapshots
from pipeline.status import published_positions

logger = logging.getLogger("foldlog")

TRY_AGAIN_S = 10.0
"""After another worker has taken a partition over."""

LOOK_S = 0.5
"""How often it is seen how far readers are behind, where that matters."""

STRAYS_S = 60.0
"""From one look for commands that lie in no partition's stream to the next."""


def build(worker: Worker, stop: Stop) -> Dataflow:
    """The dataflow. Several Bytewax processes divide the share's partitions among them."""
    source = CommandSource(worker.take, stop)
    flow = Dataflow("work")
    batches = op.input("commands", flow, source)  # Batch(partition, entries)
    decided = op.filter_map("decide", batches, stop.guarded(worker.decide))  # Decided(rows, …)
    committed = op.filter_map("commit", decided, stop.guarded(worker.commit))  # now in the log
    op.output("replies", committed, Each(stop.guarded(worker.reply), partial(worker.close, stop)))
    return flow


class Worker:
    """The steps, and what they remember: the partitions of a share, each with its reader."""

    def __init__(self, settings: Settings, share: Sequence[int], log: Log, run: str) -> None:
        """`run` names this worker to those that would work on the same partitions."""
        self._run = run
        self.domain = settings.load_domain()
        self._settings = settings
        self._log = log
        self._share = share
        self._schemas = Schemas(self.domain, log)
        self._fold = Fold(
            self.domain, partitions=log.partitions, payload_bytes_max=settings.payload_bytes_max
        )
        self._snapshots = Snapshots(
            settings.data / "snapshots",
            self.domain,
            rows=settings.snapshot_rows,
            in_memory=settings.aggregates_in_memory // log.partitions,
        )
        self._window = Window(
            us=round(settings.dedupe_window_s * 1e6),
            rows=settings.dedupe_rows_max // log.partitions,
        )
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
        return [] if self._readers_are_behind() else self._reading

    def _readers_are_behind(self) -> bool:
        """Whether to wait for the read side; only where a setting says so. Looked up now and then.

        It goes by the published file, and so holds for a read side that is gone, too.
        """
        most = self._settings.behind_rows_max
        if most and time.monotonic() >= self._look_at:
            held = published_positions(self._settings)
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
            owned, last_id = restore(
                self.domain, self._log, number, self._window,
                self._snapshots.open(number), self._snapshots.reached,
            )  # fmt: skip
        except DomainFailed as error:
            self._snapshots.drop(number)
            self._tell_halted(number, error)
            return
        self._owned[number] = owned
        self._readers[number] = StreamReader(
            settings.reachable_redis,
            self.domain.name,
            number,
            last_id,
            partitions=self._log.partitions,
            batch_max=settings.batch_max,
            linger_ms=settings.linger_ms,
            compare=comparison(self._log, number, self._fold, owned),
        )

    def decide(self, batch: Batch) -> Decided | None:
        """What a batch comes to. The partition moves on at once, before the commit.

        That is safe: where the commit fails, what the partition remembers is thrown away with it.
        """
        owned = self._owned.get(batch.partition)
        if owned is None:
            return None
        try:
            decided = self._fold.decide(owned, batch)
        except DomainFailed as error:
            self._tell_halted(batch.partition, error)
            decided = self._fold.decide(owned, batch.before(error.stream_id))
            self._halted[batch.partition] = self._readers.pop(batch.partition)
            self._reading = [*self._readers.items()]
        owned.apply(decided)
        metrics.decided(batch.partition, len(batch.entries), decided.rows)
        return decided

    def _tell_halted(self, number: int, error: DomainFailed) -> None:
        """A partition is read no more until the code is mended and started; the others go on."""
        logger.error("partition %s is halted, the others go on: %s", number, error)
        tell_halted(self._settings.reachable_redis, self.domain.name, number, str(error))

    def commit(self, decided: Decided) -> Decided | None:
        """Write a batch to the log, durably; None where the partition is not this worker's."""
        owned = decided.owner
        if owned is not self._owned.get(owned.number):
            return None  # it was decided before the partition was lost
        if len(decided.rows):
            self._schemas.note(decided.rows)
            try:
                with metrics.COMMIT.time():
                    self._log.append(owned.number, decided.first, decided.rows, self._run)
            except Superseded as error:
                self._lose(owned.number, error)
                return None
            end = decided.first + len(decided.rows)
            self._snapshots.committed(owned, end, decided.rows["stream_id"][-1].as_py())
        gc.collect(0)  # of what this batch made; what outlives it is not looked at again
        return decided

    def reply(self, decided: Decided) -> None:
        """Tell the senders their outcomes, and let go of the entries that have them in the log."""
        number = decided.owner.number
        if number in self._readers:
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
        self._open_at[number] = time.monotonic() + TRY_AGAIN_S

    def close(self, stop: Stop) -> None:
        """Called when everything has been handled: take the last snapshots, if nothing failed."""
        for reader in self._readers.values():
            reader.close()
        if stop.error is None:
            self._snapshots.close()


def prepare(settings: Settings, share: str, lives: ExitStack, stop: Stop) -> Dataflow:
    """The dataflow over a share of the log's partitions; makes the log where there is none."""
    domain = settings.load_domain()
    log = Log.create(settings.events, partitions=settings.partitions, domain=domain.name)
    mine = share_of(share, log.partitions)
    if 0 in mine:
        strays = Watch(settings.reachable_redis, domain.name, log.partitions)
        lives.enter_context(every(STRAYS_S, strays, at_start=True))
    metrics.serve(settings, 1 + int(share.partition("/")[0]))
    return build(Worker(settings, mine, log, run_of(named(share))), stop)


def work(settings: Settings, share: str = ALL) -> int:
    """Run the write side over a share until SIGTERM or Ctrl-C; the exit code."""
    with ExitStack() as lives:
        return run(settings, named(share), partial(prepare, settings, share, lives))


def by_hand() -> Dataflow:
    """For Bytewax's own command line, set by the environment:

    python -m bytewax.run "pipeline.work:by_hand()" -i 0 -a "host-a:2101;host-b:2101"
    """
    settings, lives = Settings(), ExitStack()
    stop = lives.enter_context(begun(settings, named(ALL)))
    atexit.register(lives.close)
    stop.raises = True  # nobody is there to tell when the engine has returned
    return prepare(settings, ALL, lives, stop)


if __name__ == "__main__":
    sys.exit(work(Settings(), *sys.argv[1:]))
