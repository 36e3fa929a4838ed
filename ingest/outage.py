"""A Redis that is away: which errors say so, and when to try again."""

from __future__ import annotations

import logging
import time

from redis.exceptions import (
    BusyLoadingError,
    ClusterDownError,
    ConnectionError,
    ReadOnlyError,
    TimeoutError,
    TryAgainError,
)

logger = logging.getLogger("foldlog")


LOST = (
    ConnectionError, TimeoutError, BusyLoadingError, ReadOnlyError, ClusterDownError, TryAgainError,
)  # fmt: skip
"""What redis-py raises while Redis is away, not ready yet, or no longer the one to write to."""


RETRY_FIRST_S, RETRY_MAX_S = 0.05, 2.0
"""Pauses between two attempts to connect: the first one, and what doubling ends at."""


class Backoff:
    """When to try again, after how many failures in a row; says so once for each outage."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._pause_s = 0.0
        self.not_before = 0.0

    def failed(self, error: Exception) -> None:
        if not self._pause_s:
            logger.warning(
                "%s: Redis is away (%s); trying again until it is back", self._what, error
            )
        self._pause_s = min(RETRY_MAX_S, self._pause_s * 2 or RETRY_FIRST_S)
        self.not_before = time.monotonic() + self._pause_s

    def succeeded(self) -> None:
        if self._pause_s:
            logger.info("%s: Redis is back", self._what)
        self._pause_s = 0.0
