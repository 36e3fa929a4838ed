"""The read side as a program of this host: what `foldlog read` is, and a part of `up`."""

from __future__ import annotations

import sys

from bytewax.dataflow import Dataflow

from ingest.stop import Stop
from pipeline.engine import metrics
from pipeline.engine.program import run
from pipeline.health.gauges import Gauges
from pipeline.read.dataflow import prepare
from pipeline.settings import Settings


def read(settings: Settings) -> int:
    """Run the read side until SIGTERM or Ctrl-C; the exit code."""

    def serving(stop: Stop) -> Dataflow:
        flow = prepare(settings, stop)
        metrics.serve(settings, 0, Gauges(settings))
        return flow

    return run(settings, "read", serving)


if __name__ == "__main__":
    sys.exit(read(Settings()))
