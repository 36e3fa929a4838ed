"""`foldlog work`: the write side on one screen. Commands in, decided into events, committed.

    commands ──▶ decide ──▶ commit ──▶ replies
     Redis        fold       log        Redis

A worker owns a share of the partitions. It speaks to no other worker and opens no port; what keeps
two that believe in the same partition apart is the log, in which only one gets a file's name.
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial

import bytewax.operators as op
from bytewax.dataflow import Dataflow

from ingest.source import CommandSource
from ingest.stop import Stop
from ingest.strays import Watch
from pipeline.deployment import Deployment
from pipeline.engine.program import every, run_of
from pipeline.engine.programs import named, share_of
from pipeline.engine.sink import Each
from pipeline.settings import Settings
from pipeline.work.publish import LOOK_S as PUBLISH_S
from pipeline.work.publish import Publisher
from pipeline.work.steps import Worker

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


def prepare(settings: Settings, share: str, lives: ExitStack, stop: Stop) -> Dataflow:
    """The dataflow over a share of the log's partitions; makes the log where there is none."""
    deployed = Deployment.create(settings)
    partitions = deployed.log.partitions
    mine = share_of(share, partitions)
    if 0 in mine:
        strays = Watch(settings.reachable_redis, deployed.domain.name, partitions)
        lives.enter_context(every(STRAYS_S, strays, at_start=True))
    if deployed.settings.events_stream_max:
        publisher = Publisher(deployed, mine, stop)
        lives.enter_context(every(PUBLISH_S, publisher, at_start=True, at_end=True))
    return build(Worker(deployed, mine, run_of(named(share))), stop)
