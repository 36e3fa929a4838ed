"""`foldlog up`: a whole pipeline on one host, started, watched and stopped together.

Redis, a `foldlog work` for each share of the partitions, and a `foldlog read`: each is a process of
its own, and when it dies it alone is started again, with back-off; it goes on from the log. An
error at the first start, which would only repeat itself, ends the pipeline instead.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ingest.acl import try_rights
from ingest.client import connect, durability_warning
from ingest.diagnosis import explained, shown
from ingest.errors import FoldlogError
from ingest.keys import partitions_key
from ingest.server import EmbeddedServer
from ingest.stop import Stop
from pipeline import messages
from pipeline.engine.program import stop_on_signals
from pipeline.engine.programs import named
from pipeline.log.log import Log
from pipeline.log.schemas import Schemas
from pipeline.operate.watched import Watched
from pipeline.settings import Settings

logger = logging.getLogger("foldlog")

LOCK_TIMEOUT_S = 3
"""A pipeline that was just killed needs a moment until the last of its processes is gone."""

WATCH_S = 0.05


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
        workers = settings.workers or min(max(1, (os.cpu_count() or 1) - 1), log.partitions)
        if workers > log.partitions:
            raise FoldlogError(
                f"{workers} workers for {log.partitions} partitions;"
                f" run with --workers {log.partitions} or fewer"
            )
        with connect(url) as client, explained(url):
            try_rights(client, domain.name, log.partitions)
            warning = durability_warning(client)
            if warning:
                logger.warning(warning)
            client.set(partitions_key(domain.name), log.partitions)
        ready(shown(url))
        logger.info("started: %s partitions, %s workers", log.partitions, workers)
        told = settings.model_copy(update={"redis_url": url, "workers": workers})
        _Watch(told, lock, stop).run(server)
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


class _Watch:
    """Keeps the programs running. Workers read no command before there is a file to ask."""

    def __init__(self, settings: Settings, lock: int, stop: Stop) -> None:
        environment = {**os.environ, **settings.as_environment()}
        count = settings.workers
        shares = [f"{number}/{count}" for number in range(count)]
        self._stop = stop
        self._read = Watched("read", ["pipeline.operate.read"], environment, lock)
        self._workers = [
            Watched(
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
