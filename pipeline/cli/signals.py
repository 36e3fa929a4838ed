"""How a command that goes on until Ctrl-C ends."""

from __future__ import annotations

import signal
from collections.abc import Callable


def stop_at_signals(stop: Callable[[], None]) -> None:
    """The first Ctrl-C or SIGTERM calls `stop`; a second one ends the process at once.

    Nothing is interrupted in the middle, so neither a line nor a screen is cut, and DuckDB does not
    turn Ctrl-C into an error of its own.
    """

    def first(*_: object) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, first)
