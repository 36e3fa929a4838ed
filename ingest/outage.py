"""A Redis that is away: which errors say so, and when to try again."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable

from redis.backoff import ExponentialBackoff
from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ClusterCrossSlotError,
    ClusterDownError,
    ConnectionError,
    MasterDownError,
    NoPermissionError,
    ReadOnlyError,
    TimeoutError,
    TryAgainError,
)

logger = logging.getLogger("foldlog")

LOST = (
    ConnectionError, TimeoutError, BusyLoadingError, ReadOnlyError, ClusterDownError, TryAgainError,
)  # fmt: skip
"""What redis-py raises while Redis is away, not ready yet, or no longer the one to write to."""

_MISTAKES = (
    AuthenticationError, AuthorizationError, NoPermissionError,
    AskError, ClusterCrossSlotError, ClusterDownError,
)  # fmt: skip

RETRY_FIRST_S, RETRY_MAX_S = 0.05, 2.0
"""Pauses between two attempts to connect: the first one, and what doubling ends at."""


def is_mistake(error: BaseException) -> bool:
    """Whether an error stays until somebody mends it: a password, a right, the wrong server."""
    return isinstance(error, _MISTAKES) and not isinstance(error, MasterDownError)


class _Pauses(ExponentialBackoff):
    """redis-py's, which alone would overflow after a thousand failures."""

    def compute(self, failures: int) -> float:
        return super().compute(min(failures, 64))


PAUSES = _Pauses(cap=RETRY_MAX_S, base=RETRY_FIRST_S / 2)
"""Seconds until the next attempt, by how many have failed in a row; for redis-py's `Retry` too."""


def giving_up(after_s: float) -> Callable[[Exception], None]:
    """What to call with the error of each failed attempt, before the pause that follows it.

    Raises the error where it is a mistake, or where the pause would end more than `after_s` seconds
    from now.
    """
    deadline = time.monotonic() + after_s
    count = itertools.count(1)

    def failed(error: Exception) -> None:
        if is_mistake(error) or time.monotonic() + PAUSES.compute(next(count)) >= deadline:
            raise error

    return failed


class Backoff:
    """When to try again, after how many failures in a row; says so once for each outage."""

    def __init__(self, what: str) -> None:
        """`what` is tried, in the words of the log line."""
        self._what = what
        self._failures = 0
        self.not_before = 0.0
        """When to try next, by `time.monotonic`."""

    def failed(self, error: Exception) -> None:
        """An attempt has failed: the pause begins."""
        if not self._failures:
            logger.warning(
                "%s: Redis is away (%s); trying again until it is back", self._what, error
            )
        self._failures += 1
        self.not_before = time.monotonic() + PAUSES.compute(self._failures)

    def succeeded(self) -> None:
        """Redis has answered: the next failure is a new outage."""
        if self._failures:
            logger.info("%s: Redis is back", self._what)
        self._failures = 0
