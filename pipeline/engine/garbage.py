"""Garbage that refers to itself, collected now and then, and memory that the system gets back.

A dataflow's process runs without Python's own schedule: aggregates live long, and looking at all of
them again and again took much of the time.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa

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
        give_back()


def hold_little() -> None:
    """Arrow takes memory where Python does, from now on.

    Its own allocator, mimalloc, keeps what was freed: of 128 MiB that it held in the read side 5
    were in use (pyarrow 26), and nobody else can have the rest.
    """
    pa.set_memory_pool(pa.system_memory_pool())


def give_back() -> None:
    """Let the system have what is free; takes milliseconds, so not for each batch."""
    pa.default_memory_pool().release_unused()


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
