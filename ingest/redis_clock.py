"""Redis's clock, carried on by the monotonic one while Redis says nothing: this host's may be off.

The monotonic clock stands still while the host sleeps, so whatever Redis says later moves it on.
"""

from __future__ import annotations

import time


class RedisClock:
    """As of what Redis last said to TIME."""

    def __init__(self) -> None:
        self._ahead_us: int | None = None
        """Redis's clock less the monotonic one."""
        self._asked_us = 0
        """When Redis was asked last, by the monotonic clock."""

    @property
    def now_us(self) -> int | None:
        """In µs since 1970; None before Redis was ever reached."""
        return None if self._ahead_us is None else time.monotonic_ns() // 1000 + self._ahead_us

    def forget(self) -> None:
        """This may be another Redis."""
        self._ahead_us = None

    def ask(self) -> None:
        """TIME goes out now."""
        self._asked_us = time.monotonic_ns() // 1000

    def set(self, seconds: bytes, us: bytes) -> None:
        """The answer. It may have been given at any time since Redis was asked, and lain there."""
        said = int(seconds) * 1_000_000 + int(us)
        least, most = said - time.monotonic_ns() // 1000, said - self._asked_us
        known = least if self._ahead_us is None else self._ahead_us
        self._ahead_us = min(max(known, least), most)
