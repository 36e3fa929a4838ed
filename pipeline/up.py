"""`foldlog up`: everything that a running pipeline is, started, watched and stopped together.

One process for each worker. When one dies, Bytewax ends the others; all are started again, with
backoff, and resume from the log. An error that would only repeat itself ends the pipeline instead.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial

import redis

from ingest import strays
from ingest.acl import try_rights
from ingest.client import (
    connect,
    durability_warning,
    explained,
    is_mistake,
    open_client,
    shown,
    unreachable,
)
from ingest.errors import FoldlogError
from ingest.server import EmbeddedServer, die_with_parent
from ingest.streams import partitions_key
from pipeline import logs, worker
from pipeline.compaction import compact
from pipeline.exports import export_changes
from pipeline.lock import alone
from pipeline.log import Log
from pipeline.schemas import Schemas
from pipeline.settings import Settings

logger = logging.getLogger("foldlog")

LOCK_TIMEOUT_S = 3
"""A pipeline that was just killed needs a moment until the last of its processes is gone."""

WATCH_S = 0.1
STOP_TIMEOUT_S = 60
BACKOFF_FIRST_S, BACKOFF_MAX_S = 0.2, 10.0
STRAYS_S = 60
"""From one look for commands that lie in no partition's stream to the next."""

STABLE_S = 30
"""A group that lived this long died of something new: the backoff starts again."""


def up(settings: Settings, ready: Callable[[str], None]) -> None:
    """Run the pipeline until SIGTERM or Ctrl-C. `ready` is called once with the URL for people.

    Raises `FoldlogError` when it cannot start or go on.
    """
    stop = _Stop()
    domain = settings.load_domain()
    with data_lock(settings) as lock, _redis(settings, lock) as server:
        logs.shorten(settings)
        url = server.url if server else settings.reachable_redis
        log = Log.create(settings.events, partitions=settings.partitions, domain=domain.name)
        Schemas(domain, log)  # tells what has changed before any worker starts
        if settings.workers > log.partitions:
            raise FoldlogError(
                f"{settings.workers} workers for {log.partitions} partitions;"
                f" run with --workers {log.partitions} or fewer"
            )
        with connect(url) as client, explained(url):
            try_rights(client, domain.name, log.partitions)
            warning = durability_warning(client)
            if warning:
                logger.warning(warning)
            client.set(partitions_key(domain.name), log.partitions)
        ready(shown(url))
        logger.info("started: %s partitions, %s workers", log.partitions, settings.workers)
        export = partial(export_changes, settings, log)
        compaction = partial(compact, settings, log)
        look = _Strays(url, domain.name, log.partitions).look
        look()
        with (
            _every(settings.export_interval_s, export, at_end=True),
            _every(settings.compact_interval_s, compaction, at_end=False),
            _every(STRAYS_S, look, at_end=False),
        ):
            _Group(settings.model_copy(update={"redis_url": url}), lock, stop).watch(server)
        logger.info("stopped: all that was read is committed and published")


def data_lock(settings: Settings, wait_s: float = LOCK_TIMEOUT_S) -> AbstractContextManager[int]:
    """Only one pipeline on a data directory: until the last process that inherits this is gone."""
    settings.protect()
    refusal = (
        f"another pipeline runs on {settings.data}; stop it, or name another folder with --data"
    )
    return alone(settings.lock, refusal, wait_s)


@contextmanager
def _every(interval_s: float, work: Callable[[], object], *, at_end: bool) -> Iterator[None]:
    """Do the work now and then, in a thread, and perhaps once more at the end; 0 s is never."""
    closing = threading.Event()

    def run() -> None:
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


@contextmanager
def _redis(settings: Settings, lock: int) -> Iterator[EmbeddedServer | None]:
    """The embedded server, unless a Redis was named."""
    if settings.redis_url:
        yield None
        return
    server = EmbeddedServer(settings.data, settings.redis_server, pass_fds=[lock])
    try:
        server.keep_running()
        yield server
    finally:
        server.stop()


class _Strays:
    """Looks for commands that lie where nobody reads them, and warns once of each stream."""

    def __init__(self, url: str, domain: str, partitions: int) -> None:
        self._url = url
        self._domain = domain
        self._partitions = partitions
        self._known: set[str] = set()
        self._may_look = True

    def look(self) -> None:
        try:
            with open_client(self._url) as client:
                found = strays.look(client, self._domain, self._partitions)
        except redis.RedisError as error:  # an outage is the workers' concern
            if is_mistake(error) and self._may_look:
                self._may_look = False
                logger.warning(
                    "stray commands are not looked for: %s", unreachable(self._url, error)
                )
            return
        for stream in found.keys() - self._known:
            logger.warning("%s", strays.warning(stream, found[stream]))
        self._known |= found.keys()


class _Stop:
    """SIGTERM or Ctrl-C has come. Made first of all, so that none is missed."""

    def __init__(self) -> None:
        self.requested = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._request)

    def _request(self, *_: object) -> None:
        self.requested = True


class _Group:
    """The worker processes: they live and die together."""

    def __init__(self, settings: Settings, lock: int, stop: _Stop) -> None:
        self._settings = settings
        self._lock = lock
        self._stop = stop
        self._processes: list[subprocess.Popen[bytes]] = []

    def watch(self, server: EmbeddedServer | None) -> None:
        """Start the group, and start it again when it dies, until told to stop."""
        pause = BACKOFF_FIRST_S
        while not self._stop.requested:
            started = time.monotonic()
            self._start()
            while all(process.poll() is None for process in self._processes):
                if self._stop.requested:
                    for process in self._processes:
                        process.terminate()
                elif server is not None:
                    server.keep_running()
                time.sleep(WATCH_S)
            codes = self._end()
            if worker.TOLD in codes:
                raise FoldlogError("the pipeline stopped; the line above says why")
            if self._stop.requested:
                if not {0, -signal.SIGTERM} >= set(codes):  # a worker may be stopped before it runs
                    raise FoldlogError(f"stopped, but not cleanly (exit codes {codes})")
                return
            pause = BACKOFF_FIRST_S if time.monotonic() - started > STABLE_S else pause
            logger.warning("a worker died (exit codes %s); starting again in %.1f s", codes, pause)
            self._wait(pause)
            pause = min(BACKOFF_MAX_S, pause * 2)

    def _start(self) -> None:
        count = self._settings.workers
        addresses = worker.addresses(count)
        for process in range(count):
            self._processes.append(
                subprocess.Popen(
                    # -P: a user's pipeline.py in the current folder must not shadow ours
                    [sys.executable, "-P", "-m", "pipeline.worker", str(process), *addresses],
                    env={**os.environ, **self._settings.as_environment()},
                    start_new_session=True,
                    preexec_fn=die_with_parent,
                    pass_fds=[self._lock],
                )
            )
        pids = " ".join(str(process.pid) for process in self._processes)
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, pids.encode(), 0)

    def _end(self) -> list[int]:
        """Wait for a group in which one has ended; the exit codes."""
        deadline = time.monotonic() + (STOP_TIMEOUT_S if self._stop.requested else 1)
        codes = []
        for process in self._processes:
            try:
                process.wait(timeout=max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            codes.append(process.returncode)
        self._processes = []
        return codes

    def _wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not self._stop.requested and time.monotonic() < deadline:
            time.sleep(WATCH_S)
