"""One Bytewax process. `foldlog up` starts these; by hand, on as many hosts as there are addresses:

python -m bytewax.run "pipeline.worker:flow()" -i 0 -a "host-a:2101;host-b:2101"
"""

from __future__ import annotations

import gc
import logging
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from datetime import timedelta

from bytewax.dataflow import Dataflow
from bytewax.run import cli_main
from redis import RedisError

from ingest.client import is_mistake, unreachable
from ingest.errors import FoldlogError
from ingest.source import Stop
from pipeline import logs, metrics
from pipeline.dataflow import build
from pipeline.settings import Settings

logger = logging.getLogger("foldlog")

TOLD = 3
"""Exit code after an error that starting again would only repeat."""

EPOCH = timedelta(seconds=10)
"""Bytewax's epochs mean nothing here: the log is the recovery store."""


def flow(stop: Stop | None = None) -> Dataflow:
    """The dataflow, set by the environment; SIGTERM and SIGINT end it after the batch in hand."""
    stop = stop or Stop()

    def request(*_: object) -> None:
        stop.requested = True

    signal.signal(signal.SIGTERM, request)
    signal.signal(signal.SIGINT, request)
    settings = Settings()
    settings.protect()
    return build(settings, stop)


def addresses(count: int) -> list[str]:
    """Where so many processes on this host find each other; a single one needs none."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [f"127.0.0.1:{s.getsockname()[1]}" for s in sockets] if count > 1 else []
    finally:
        for s in sockets:
            s.close()


def run(make: Callable[[Stop], Dataflow], process: int = 0, addresses: Sequence[str] = ()) -> int:
    """Run one process of a dataflow to its end; the exit code."""
    logs.set_up(Settings())
    stop = Stop()
    gc.disable()  # aggregates live long: looking at them again and again took much of the time
    try:
        if addresses:
            cli_main(make(stop), process_id=process, addresses=[*addresses], epoch_interval=EPOCH)
        else:
            cli_main(make(stop), epoch_interval=EPOCH)
        if stop.error is not None:
            raise stop.error
        stop.at_end()
    except Exception as error:
        told = _told(error)
        if told is None:
            logger.error("a worker failed: %s; it is started again", logs.where(_first(error)))
            return 1
        logger.error("%s", told)
        return TOLD
    return 0


def _told(error: BaseException | None) -> FoldlogError | None:
    """The error behind those that Bytewax wraps around it, if it is one for the user."""
    while error is not None and not isinstance(error, FoldlogError):
        if isinstance(error, RedisError) and is_mistake(error):
            return unreachable(Settings().reachable_redis, error)
        error = error.__cause__ or error.__context__
    return error


def _first(error: BaseException) -> BaseException:
    """The error that Bytewax has wrapped."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _main(process: int, addresses: list[str]) -> int:
    def make(stop: Stop) -> Dataflow:
        metrics.serve(Settings(), process)
        return flow(stop)

    return run(make, process, addresses)


if __name__ == "__main__":
    sys.exit(_main(int(sys.argv[1]), sys.argv[2:]))
