"""The write side as a program of this host: what `foldlog work` and each worker of `up` is."""

from __future__ import annotations

import atexit
import os
import sys
import time
from contextlib import ExitStack

from bytewax.dataflow import Dataflow

from ingest.stop import Stop
from pipeline.engine import metrics
from pipeline.engine.program import begun, run
from pipeline.engine.programs import ALL, named
from pipeline.settings import Settings
from pipeline.work.dataflow import prepare

WATCH_S = 0.02
"""How often to look for the file that the first command waits for."""


def work(settings: Settings, share: str = ALL, after: str | None = None) -> int:
    """Run the write side over a share until SIGTERM or Ctrl-C; the exit code.

    It reads the first command when there is a file `after`, where one is named.
    """

    def serving(stop: Stop) -> Dataflow:
        flow = _serving(settings, share, lives, stop)
        while after is not None and not os.path.exists(after) and not stop.requested:
            time.sleep(WATCH_S)
        return flow

    with ExitStack() as lives:
        return run(settings, named(share), serving)


def by_hand() -> Dataflow:
    """For Bytewax's own command line, set by the environment:

    python -m bytewax.run "pipeline.operate.work:by_hand()" -i 0 -a "host-a:2101;host-b:2101"
    """
    settings, lives = Settings(), ExitStack()
    stop = lives.enter_context(begun(settings, named(ALL)))
    atexit.register(lives.close)
    stop.raises = True  # nobody is there to tell when the engine has returned
    return _serving(settings, ALL, lives, stop)


def _serving(settings: Settings, share: str, lives: ExitStack, stop: Stop) -> Dataflow:
    flow = prepare(settings, share, lives, stop)
    metrics.serve(settings, 1 + int(share.partition("/")[0]))
    return flow


if __name__ == "__main__":
    sys.exit(work(Settings(), *sys.argv[1:]))
