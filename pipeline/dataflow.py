"""The whole graph on one screen."""

from __future__ import annotations

import gc
import os
from functools import partial

import bytewax.operators as op
from bytewax.dataflow import Dataflow

from ingest.errors import DomainFailed
from ingest.outcome import Outcome
from ingest.reader import StreamReader
from ingest.source import Batch, CommandSource, Stop
from ingest.streams import tell_halted
from pipeline import metrics
from pipeline.fold import Decided, Fold, Partition
from pipeline.log import Log
from pipeline.recovery import Refold, comparison, restore
from pipeline.schemas import Schemas
from pipeline.settings import Settings
from pipeline.sinks import ReadModels, Replies
from pipeline.snapshot import Snapshots
from projections.live import Live
from projections.publish import Publisher
from projections.writer import Commit, Writer


def build(settings: Settings, stop: Stop) -> Dataflow:
    """The dataflow of one process. Each worker owns the partitions that it reads."""
    domain = settings.load_domain()
    log = Log.open(settings.events, domain=domain.name)
    schemas = Schemas(domain, log)
    owned: dict[int, Partition] = {}
    readers: dict[int, StreamReader] = {}
    fold = Fold(domain, partitions=log.partitions, payload_bytes_max=settings.payload_bytes_max)
    snapshots = Snapshots(
        settings.data / "snapshots",
        domain,
        rows=settings.snapshot_rows,
        in_memory=settings.aggregates_in_memory // log.partitions,
        window=settings.dedupe_window,
    )
    stop.at_end = snapshots.close
    url = settings.reachable_redis
    stop.on_halt = partial(tell_halted, url, domain.name)

    def open_reader(number: int) -> StreamReader:
        snapshot = snapshots.open(number)
        owned[number], last_id = restore(
            domain, log, number, settings.dedupe_window, snapshot, snapshots.reached
        )
        readers[number] = StreamReader(
            url,
            domain.name,
            number,
            last_id,
            partitions=log.partitions,
            batch_max=settings.batch_max,
            linger_ms=settings.linger_ms,
            compare=comparison(log, number, fold, owned[number]),
        )
        return readers[number]

    def decide(batch: Batch) -> Decided:
        partition = owned[batch.partition]
        if batch.partition in stop.halted:
            batch = batch.before(None)  # it was read before the halt, and waits in Redis
        try:
            decided = fold.decide(partition, batch)
        except DomainFailed as error:
            stop.halt(batch.partition, error)
            batch = batch.before(error.stream_id)
            decided = fold.decide(partition, batch)
        partition.apply(decided, settings.dedupe_window)
        metrics.decided(batch.partition, len(batch.entries), decided.rows)
        return decided

    def commit(decided: Decided) -> Decided:
        if len(decided.rows):
            schemas.note(decided.rows)
            with metrics.COMMIT.time():
                log.append(decided.partition, decided.first, decided.rows)
            end, stream_id = (
                decided.first + len(decided.rows),
                decided.rows["stream_id"][-1].as_py(),
            )
            snapshots.committed(owned[decided.partition], end, stream_id)
        gc.collect(0)  # of what this batch made; what outlives it is not looked at again
        return decided

    def respond(partition: int, replies: list[tuple[str, Outcome]]) -> None:
        readers[partition].respond(replies)

    def keep_live() -> Live:
        writer = Writer(settings.data / "writer.duckdb", domain, log, Refold(domain, log))
        writer.use_threads(max(1, (os.cpu_count() or 1) - settings.workers))
        publisher = Publisher(writer, settings.published, settings.publish_interval_ms / 1000)
        return Live(
            writer,
            publisher,
            offered=settings.rebuilt,
            rows_max=settings.flush_rows_max,
            on_failure=stop.failed,
            flushed=metrics.FLUSH.observe,
            published=metrics.PUBLISH.observe,
        )

    source = CommandSource(log.partitions, open_reader, stop)

    flow = Dataflow("foldlog")
    batches = op.input("commands", flow, source)  # Batch(partition, entries)
    decided = op.map("decide", batches, decide)  # Decided(partition, first, rows, …)
    committed = op.map("commit", decided, commit)  # the same, now in the log
    op.output("replies", committed, Replies(respond))
    changes = op.map("change", committed, _change)  # Commit(partition, first, rows, states)
    keyed = op.key_on(
        "to_one_writer", changes, lambda _: ReadModels.PART
    )  # ("read_models", Commit)
    op.output("read_models", keyed, ReadModels(keep_live))
    return flow


def _change(decided: Decided) -> Commit:
    return Commit(decided.partition, decided.first, decided.rows, decided.states)
