"""When a partition's folder is to be listed again, for whoever follows the log.

A folder's time stamp tells cheaply that nothing has happened. But a name that comes within the tick
in which the folder was listed leaves the stamp as it was, and how long that is, and by whose clock,
nobody knows. So a stamp's age counts from when it was first seen, and a listing is good only until
that age has doubled.
"""

from __future__ import annotations

import os
import time

from ingest.errors import LogDamaged
from pipeline.log.disk import MEND
from pipeline.log.log import Log

TICK_S = 0.1
"""Most file systems' clocks tick more often: what comes within one tick is seen at once."""

PATIENCE_S = 5.0
"""No host's listing is so old: a file that is still gone, or not listed yet, is missing."""


class Listings:
    """Those of one follower."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._made: dict[int, tuple[int, float, float]] = {}
        """Partition → its folder's stamp, when that was first seen, when the folder was listed."""
        self._stuck_since: dict[int, float] = {}

    def due(self, partition: int) -> bool:
        """Whether to list the folder now; it then counts as read."""
        stamp = os.stat(self._log.partition_folder(partition)).st_mtime_ns
        now = time.monotonic()
        known, since, made = self._made.get(partition, (None, now, now))
        if stamp != known:
            since = now
        elif made - since > TICK_S and now - since < 2 * (made - since):
            return False
        self._made[partition] = stamp, since, now
        return True

    def again(self, partition: int) -> None:
        """Not all that was listed was read."""
        self._made.pop(partition, None)

    def stuck(self, partition: int, why: str) -> None:
        """Nothing more can be read yet. Raises `LogDamaged` where it has been so for long."""
        self.again(partition)
        now = time.monotonic()
        if now - self._stuck_since.setdefault(partition, now) > PATIENCE_S:
            raise LogDamaged(f"partition {partition}: {why}; {MEND}")

    def joined(self, partition: int) -> None:
        """What was listed joined what was read before."""
        self._stuck_since.pop(partition, None)
