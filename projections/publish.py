"""Publishing: readers open a plain DuckDB file that holds one consistent moment.

The writer's file is checkpointed, copied beside, fsynced, and renamed over the published one. A
reader that has the old one open keeps it; the next one to open the name gets the new one. No lock
is met.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from pathlib import Path

from ingest import crash, rights
from projections.writer import Writer

FICLONE = 0x40049409
"""Linux: let a file have another one's blocks, until one of them is written to. On XFS and btrfs a
copy takes a millisecond then, whatever its size."""

COPY_SHARE = 10
"""Copying takes at most one part in this many of the writer's time, checkpoints at most half."""

BUSY_SHARE = 4
"""Under load, applying and publishing take at most one part in this many of its time: each has a
cost of its own, so that 32,000 rows at a time take 1.7 times the CPU of 90,000."""


class Publisher:
    """Replaces the published file at `path` by a copy of the writer's, at most every `interval_s`.

    It only says when the next publish is due: the caller asks, and publishes.
    """

    def __init__(self, writer: Writer, path: Path, interval_s: float) -> None:
        self._writer = writer
        self._path = path
        self._interval_s = interval_s
        self._published: object = None
        self.soon_at = 0.0
        """When the next publish is due, by `time.monotonic`."""
        self.next_at = 0.0
        """The same under load."""

    @property
    def behind(self) -> bool:
        """Whether readers do not see all that the writer has applied, or see files that go."""
        return self._published != self._writer.moment

    @property
    def first(self) -> bool:
        """Whether readers have no file at all yet."""
        return not self._path.exists()

    def publish(self, busy_s: float = 0) -> bool:
        """Replace the published file; false where it already shows this moment.

        Under load, `busy_s` is how long it took to apply what is to be seen now.
        Raises `duckdb.Error` or `OSError`; the published file stays as it was then.
        """
        moment = self._writer.moment
        if self._published == moment:
            return False
        started = time.monotonic()
        _, until, files = moment
        self._writer.publish_log(until, files)
        self._writer.checkpoint()
        to_copy = time.monotonic()
        beside = self._path.with_suffix(".next")
        crash.point("publish.to_copy")
        _copy(self._writer.path, beside)
        crash.point("publish.copied")
        rights.share(beside)
        with open(beside, "rb") as copy:
            crash.point("publish.to_fsync")
            os.fsync(copy.fileno())
            crash.point("publish.fsynced")
        crash.point("publish.to_rename")
        os.replace(beside, self._path)
        crash.point("publish.renamed")
        self._published = moment
        now = time.monotonic()
        copied_s = now - to_copy
        if busy_s:
            busy_s += now - started
        self.soon_at = max(
            started + self._interval_s,
            now + (to_copy - started),
            now + copied_s * (COPY_SHARE - 1),
        )
        self.next_at = max(self.soon_at, now + busy_s * (BUSY_SHARE - 1))
        return True


def _copy(source: Path, target: Path) -> None:
    with open(source, "rb") as held, open(target, "wb") as copy:
        try:
            fcntl.ioctl(copy, FICLONE, held.fileno())
        except OSError:  # a file system without that
            shutil.copyfile(source, target)
