"""Garbage that refers to itself, collected now and then.

A dataflow's process runs without Python's own schedule: aggregates live long, and looking at all of
them again and again took much of the time.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

YOUNG_MAX = 300_000
"""Objects that may have been made and not freed since the last look, which then takes 0.05 s. A
batch of 8,192 commands on random carts leaves about 30,000, of which most are freed when the next
states replace them. To look at each batch took 10 % of the write side's time."""


def no_more_by_itself() -> None:
    """From now on only `collect_when_due` collects."""
    gc.disable()


def collect_when_due() -> None:
    """Look at the young objects once there are many; what outlives it is not looked at again."""
    if gc.get_count()[0] > YOUNG_MAX:
        gc.collect(0)


@contextmanager
def not_now() -> Iterator[None]:
    """No collection while this lasts: of many states that come into memory at once, half the time
    went to looking at them again and again.
    """
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()
