"""`foldlog up`: a whole pipeline on one host, started, watched and stopped together.

Redis, a `foldlog work` for each share of the partitions, and a `foldlog read`: each is a process of
its own, and when it dies it alone is started again, with back-off; it goes on from the log. An
error at the first start, which would only repeat itself, ends the pipeline instead.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from ingest.acl import try_rights
from ingest.child import with_parent
from ingest.client import connect, durability_warning
from ingest.diagnosis import explained, shown
from ingest.errors import FoldlogError
from ingest.keys import partitions_key
from ingest.server import EmbeddedServer
from ingest.stop import Stop
from pipeline import messages
from pipeline.engine.program import READY, TOLD, stop_on_signals
from pipeline.engine.programs import named
from pipeline.log.log import Log
from pipeline.log.schemas import Schemas
from pipeline.settings import Settings

logger = logging.getLogger("foldlog")

LOCK_TIMEOUT_S = 3
"""A pipeline that was just killed needs a moment until the last of its processes is gone."""

WATCH_S = 0.05
STOP_TIMEOUT_S = 60
BACKOFF_FIRST_S, BACKOFF_MAX_S = 0.1, 10.0
STABLE_S = 30
"""A process that lived this long died of something new: the back-off starts again."""


def up(settings: Settings, ready: Callable[[str], None]) -> None:
    """Run the pipeline until SIGTERM or Ctrl-C. `ready` is called once with the URL for people.

    Raises `FoldlogError` when it cannot start or go on.
    """
    stop = stop_on_signals()  # first of all, so that no signal is missed
    domain = settings.load_domain()
    with settings.alone(LOCK_TIMEOUT_S) as lock, _redis(settings, lock) as server:
        messages.shorten(settings)
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
        _Watch(settings.model_copy(update={"redis_url": url}), lock, stop).run(server)
        logger.info("stopped: all that was read is committed and published")


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


class _Child:
    """One program, started again by itself when it dies."""

    def __init__(self, name: str, words: list[str], environment: dict[str, str], lock: int) -> None:
        self.name = name
        self.process: subprocess.Popen[bytes] | None = None
        self._words = [sys.executable, "-P", "-m", *words]  # -P: no pipeline.py of the user's
        self._environment = environment
        self._lock = lock
        self._ready: int | None = None
        self._was_ready = False
        self._started = 0.0
        self._start_at = 0.0
        self._pause_s = BACKOFF_FIRST_S

    def keep_running(self) -> None:
        """Start it if it does not run and its time has come.

        Raises `FoldlogError` where it has said what is wrong before it ever ran.
        """
        if self.process is not None and (code := self.process.poll()) is not None:
            self._died(code)
        if self.process is None and time.monotonic() >= self._start_at:
            self._start()

    def _start(self) -> None:
        self._ready, telling = os.pipe()
        os.set_blocking(self._ready, False)
        self.process = subprocess.Popen(
            with_parent(self._words),
            env=self._environment | {READY: str(telling)},
            start_new_session=True,
            pass_fds=[self._lock, telling],
        )
        os.close(telling)
        self._started = time.monotonic()

    def is_ready(self) -> bool:
        """Whether it has ever said that it runs."""
        if self._ready is not None and not self._was_ready:
            with suppress(BlockingIOError):
                self._was_ready = bool(os.read(self._ready, 1))
        return self._was_ready

    def _died(self, code: int) -> None:
        was_ready = self.is_ready()
        self._forget()
        if code == TOLD and not was_ready:
            raise FoldlogError("the pipeline stopped; the line above says why")
        if time.monotonic() - self._started > STABLE_S:
            self._pause_s = BACKOFF_FIRST_S
        logger.warning(
            "%s has ended (exit code %s); it is started again in %.1f s",
            self.name, code, self._pause_s,
        )  # fmt: skip
        self._start_at = time.monotonic() + self._pause_s
        self._pause_s = min(BACKOFF_MAX_S, self._pause_s * 2)

    def _forget(self) -> None:
        self.process = None
        if self._ready is not None:
            os.close(self._ready)
            self._ready = None

    def stop(self) -> int:
        """End it after the batch in hand; its exit code, 0 where it does not run."""
        if self.process is None:
            return 0
        self.process.terminate()
        try:
            self.process.wait(timeout=STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        code = self.process.returncode
        self._forget()
        return 0 if code == -signal.SIGTERM else code  # it may be stopped before it runs


class _Watch:
    """Keeps the programs running. Workers read no command before there is a file to ask."""

    def __init__(self, settings: Settings, lock: int, stop: Stop) -> None:
        environment = {**os.environ, **settings.as_environment()}
        count = settings.workers
        shares = [f"{number}/{count}" for number in range(count)]
        self._stop = stop
        self._read = _Child("read", ["pipeline.operate.read"], environment, lock)
        self._workers = [
            _Child(
                named(share),
                ["pipeline.operate.work", share, str(settings.published)],
                environment,
                lock,
            )
            for share in shares
        ]
        wanted = "\n".join(child.name for child in (*self._workers, self._read))
        os.ftruncate(lock, 0)
        os.pwrite(lock, wanted.encode(), 0)

    def run(self, server: EmbeddedServer | None) -> None:
        """Until told to stop; then the workers finish their batches before the read side ends."""
        try:
            while not self._stop.requested:
                if server is not None:
                    server.keep_running()
                for child in (self._read, *self._workers):
                    child.keep_running()
                time.sleep(WATCH_S)
        finally:
            codes = self._end()
        if any(codes):
            raise FoldlogError(f"stopped, but not cleanly (exit codes {codes})")

    def _end(self) -> list[int]:
        for worker in self._workers:
            if worker.process is not None:
                worker.process.terminate()  # all at once: each waits for its own batch
        return [child.stop() for child in (*self._workers, self._read)]
