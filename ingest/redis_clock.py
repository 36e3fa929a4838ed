"""Redis's clock, carried on by the monotonic one while Redis says nothing: this host's may be off.

The monotonic clock stands still while the host sleeps, so whatever Redis says later moves it on.
"""

from __future__ import annotations

import time

READ_LATE_US = 10_000_000
"""So long an answer of Redis may lie there until it is read; a clock that is further behind what
was known of it has been set back."""


class RedisClock:
    """As of what Redis last said to TIME."""

    def __init__(self) -> None:
        self._ahead_us: int | None = None
        """Redis's clock less the monotonic one."""

    @property
    def now_us(self) -> int | None:
        """In µs since 1970; None before Redis was ever reached."""
        return None if self._ahead_us is None else time.monotonic_ns() // 1000 + self._ahead_us

    def forget(self) -> None:
        """This may be another Redis."""
        self._ahead_us = None

    def set(self, seconds: bytes, us: bytes) -> None:
        """It is at least there."""
        ahead = int(seconds) * 1_000_000 + int(us) - time.monotonic_ns() // 1000
        known = self._ahead_us
        if known is None or not known - READ_LATE_US < ahead < known:
            self._ahead_us = ahead
