"""What a program of a pipeline is, `foldlog work` or `foldlog read`: one dataflow in one process.

It ends after the batch in hand on SIGTERM and SIGINT, says what happens in one line each, and names
itself in `data/programs/` for as long as it lives.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import timedelta

from bytewax.dataflow import Dataflow
from bytewax.run import cli_main

from ingest import rights
from ingest.errors import FoldlogError
from ingest.stop import Stop
from pipeline import messages
from pipeline.engine.garbage import hold_little, no_more_by_itself
from pipeline.engine.programs import Program
from pipeline.engine.without_pandas import start_without_pandas
from pipeline.settings import Settings

logger = logging.getLogger("foldlog")

TOLD = 3
"""Exit code after an error that starting again at once would only repeat."""

EPOCH = timedelta(hours=1)
"""Bytewax's recovery is not used, since we resume from the log: epochs should cost nothing."""

READY = "FOLDLOG_READY"
"""In the environment: the descriptor on which whoever started the program is told that it runs."""


_TOKEN = secrets.token_hex(3)
"""Tells apart programs with the same process id, since containers give it again and again."""


def stop_on_signals() -> Stop:
    """SIGTERM and Ctrl-C request the end from now on, instead of ending the process."""
    stop = Stop()

    def request(*_: object) -> None:
        stop.requested = True

    signal.signal(signal.SIGTERM, request)
    signal.signal(signal.SIGINT, request)
    return stop


@contextmanager
def begun(settings: Settings, name: str) -> Iterator[Stop]:
    """A process that is a program for as long as this lasts; SIGTERM and SIGINT request its end."""
    start_without_pandas()
    settings.protect()
    messages.set_up(settings)
    stop = stop_on_signals()
    no_more_by_itself()
    hold_little()
    with _announced(settings, name):
        yield stop


def run(settings: Settings, name: str, make: Callable[[Stop], Dataflow]) -> int:
    """Run a dataflow to its end; the exit code. `make` does what has to be done before, too."""
    try:
        with begun(settings, name) as stop:
            cli_main(make(stop), epoch_interval=EPOCH)
            if stop.error is not None:
                raise stop.error
    except FoldlogError as error:
        logger.error("%s: %s", name, error)
        return TOLD
    except Exception as error:
        logger.error("%s failed: %s; it is started again", name, messages.where(error))
        return 1
    return 0


def ready() -> None:
    """Tell whoever has started this program, once, that it runs."""
    descriptor = os.environ.pop(READY, None)
    if descriptor is not None:
        with suppress(OSError):  # nobody waits any more
            os.write(int(descriptor), b"1")
            os.close(int(descriptor))


def run_of(name: str) -> str:
    """Which run of a program this process is: no other has the same."""
    told = name.replace(" ", "-").replace("/", "-of-")
    return f"{told}@{socket.gethostname()}-{os.getpid()}-{_TOKEN}"


@contextmanager
def _announced(settings: Settings, name: str) -> Iterator[None]:
    """The program's own file in `data/programs/`, locked while it lives."""
    settings.programs.mkdir(parents=True, exist_ok=True)
    rights.share(settings.programs)
    about = Program(name, socket.gethostname(), os.getpid(), time.time())
    path = settings.programs / run_of(name)
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        rights.share(path)
        os.write(file.fileno(), json.dumps(asdict(about)).encode())
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


@contextmanager
def every(
    interval_s: float,
    work: Callable[[], object],
    *,
    at_start: bool = False,
    at_end: bool = False,
) -> Iterator[None]:
    """Do the work now and then, in a thread, perhaps also at once and at the end; 0 s is never."""
    closing = threading.Event()

    def run() -> None:
        if at_start:
            attempt()
        while not closing.wait(interval_s):
            attempt()
        if at_end:
            attempt()

    def attempt() -> None:
        try:
            work()
        except (FoldlogError, OSError) as error:  # whoever needs it is told; events go on
            logger.warning("%s", error)

    thread = threading.Thread(target=run, daemon=True)
    if interval_s:
        thread.start()
    try:
        yield
    finally:
        closing.set()
        if interval_s:
            thread.join()
