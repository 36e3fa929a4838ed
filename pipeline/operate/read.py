"""The read side as a program of this host: what `foldlog read` is, and a part of `up`."""

from __future__ import annotations

import sys
from contextlib import ExitStack

from bytewax.dataflow import Dataflow

from ingest.stop import Stop
from pipeline.engine import metrics
from pipeline.engine.program import run
from pipeline.health.gauges import Gauges
from pipeline.lock import alone
from pipeline.read.dataflow import prepare
from pipeline.settings import Settings

WAIT_S = 10
"""For a rebuild that puts its file in place."""


def read(settings: Settings) -> int:
    """Run the read side until SIGTERM or Ctrl-C; the exit code."""

    def serving(stop: Stop) -> Dataflow:
        # DuckDB's own lock is gone as soon as the file is copied: the system lets go of it when
        # this process closes the file once.
        lives.enter_context(alone(settings.read_lock, refusal, WAIT_S))
        flow = prepare(settings, stop)
        metrics.serve(settings, 0, Gauges(settings))
        return flow

    refusal = f"another read side, or a rebuild, works on {settings.data}; stop it, or wait"
    with ExitStack() as lives:
        return run(settings, "read", serving)


if __name__ == "__main__":
    sys.exit(read(Settings()))
