"""`foldlog read`: the read side on one screen. The log in, read models kept, published.

    log ──▶ fold ──▶ flush ──▶ publish
    follow  states   DuckDB    copy, rename

It follows the log as any reader can, from the positions in its own DuckDB file. The write side does
not know of it, and it may be away for as long as it likes.
"""

from __future__ import annotations

from functools import partial

import bytewax.operators as op
from bytewax.dataflow import Dataflow

from ingest.stop import Stop
from pipeline.deployment import Deployment
from pipeline.engine.sink import Each
from pipeline.log.schemas import check
from pipeline.read.source import LogSource
from pipeline.read.steps import Reader
from pipeline.settings import Settings


def build(reader: Reader, stop: Stop) -> Dataflow:
    """The dataflow, for one Bytewax worker: the read models have one writer."""
    source = LogSource(partial(reader.start, stop), reader.rows_max, stop)
    flow = Dataflow("read")
    looks = op.input("log", flow, source)  # Look(found): rows that are new, often none
    folded = op.filter_map("fold", looks, stop.guarded(reader.fold))  # the same, states moved on
    flushed = op.filter_map("flush", folded, stop.guarded(reader.flush))  # the same, now in DuckDB
    op.output("publish", flushed, Each(stop.guarded(reader.publish), partial(reader.close, stop)))
    return flow


def prepare(settings: Settings, stop: Stop) -> Dataflow:
    """The dataflow. Raises `LogMismatch` where there is no log of the domain."""
    deployed = Deployment.open(settings)
    check(deployed.domain, deployed.log)
    return build(Reader(deployed), stop)
