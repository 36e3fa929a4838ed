"""What keeps the two sides in step: a thread that applies commits as they come, and publishes.

Commits wait in memory until the next publish is due, since nobody sees them before; then one flush
takes them all. More than `rows_max` waiting rows are flushed at once, and `put` waits for it: the
write side does not run away from the read side.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import duckdb

from ingest.errors import NoRoom, ReadModelInvalid, one_line
from projections.publish import Publisher
from projections.writer import Commit, Writer

logger = logging.getLogger("foldlog")

LOOK_S = 0.5
"""How often an idle pipeline looks for rebuilt read models."""


class Live:
    """Use `put` for each commit, and `close` at the end.

    A file that appears at `offered` holds read models that were rebuilt; they are taken over, and
    the file is removed. A failure is told to `on_failure`, which has to end the pipeline; nothing
    is applied after it. `flushed` and `published` are called with the seconds that each took.
    """

    def __init__(
        self,
        writer: Writer,
        publisher: Publisher,
        *,
        offered: Path,
        rows_max: int,
        on_failure: Callable[[BaseException], None],
        flushed: Callable[[float], None] = lambda _: None,
        published: Callable[[float], None] = lambda _: None,
    ) -> None:
        self._writer = writer
        self._publisher = publisher
        self._offered = offered
        self._rows_max = rows_max
        self._waiting: list[Commit] = []
        self._rows = 0
        self._closing = False
        self._on_failure = on_failure
        self._flushed = flushed
        self._published = published
        self._changed = threading.Condition()
        self._failed = False
        self._begun = threading.Event()
        self._thread = threading.Thread(target=self._run, name="read-models", daemon=True)
        self._thread.start()
        if publisher.first:
            self._begun.wait()  # whoever has an outcome finds a file to ask

    def put(self, commit: Commit) -> None:
        with self._changed:
            while self._rows >= self._rows_max and not self._failed:
                self._changed.wait()
            self._waiting.append(commit)
            self._rows += len(commit.rows)
            self._changed.notify_all()

    def close(self) -> None:
        """Apply and publish what is left."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        try:
            self._publish()
            self._begun.set()
            while self._flush_when_due():
                pass
            self._writer.close()
        except BaseException as error:
            self._on_failure(_told(error))
            self._begun.set()
            with self._changed:
                self._failed = True
                self._changed.notify_all()

    def _flush_when_due(self) -> bool:
        """Wait for commits and for their time; false when all is done."""
        with self._changed:
            while not self._waiting and not self._closing and not self._publisher.behind:
                if self._offered.exists():
                    break
                self._changed.wait(LOOK_S)
            while not self._closing and self._rows < self._rows_max:
                left = self._publisher.next_at - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            commits, self._waiting, self._rows = self._waiting, [], 0
            closing = self._closing
            self._changed.notify_all()
        started = time.monotonic()
        if closing:
            self._writer.use_threads(os.cpu_count() or 1)
        self._writer.apply(commits)
        if commits:
            self._flushed(time.monotonic() - started)
        if self._offered.exists():
            self._take_over()
        elif closing or time.monotonic() >= self._publisher.next_at:
            self._publish()
        return not closing

    def _publish(self) -> None:
        started = time.monotonic()
        if self._publisher.publish():
            self._published(time.monotonic() - started)

    def _take_over(self) -> None:
        try:
            self._writer.adopt(self._offered)
        except ReadModelInvalid as error:
            logger.warning("the read models stay as they are: %s", error)
        else:
            logger.info("rebuilt read models are taken over")
        self._publish()
        self._offered.unlink()


def _told(error: BaseException) -> BaseException:
    """As one line for the user, where it is the machine's failure and not the code's."""
    if not isinstance(error, duckdb.Error | OSError):
        return error
    return NoRoom(
        f"the read models cannot be written ({one_line(error)});"
        " nothing is lost: mend that, and start again"
    )
