"""The Bytewax sink of both sides: a step at the end of a dataflow. Adapter code only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from bytewax.outputs import DynamicSink, StatelessSinkPartition

X = TypeVar("X")


class _EachPart(StatelessSinkPartition[X]):
    def __init__(self, step: Callable[[X], object], at_end: Callable[[], None]) -> None:
        self._step = step
        self._at_end = at_end

    def write_batch(self, items: list[X]) -> None:
        for item in items:
            self._step(item)

    def close(self) -> None:
        self._at_end()


class Each(DynamicSink[X], Generic[X]):
    """Calls `step` with each item, and `at_end` when everything has been handled."""

    def __init__(self, step: Callable[[X], object], at_end: Callable[[], None]) -> None:
        self._step = step
        self._at_end = at_end

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _EachPart[X]:
        """Called by Bytewax in each worker."""
        return _EachPart(self._step, self._at_end)
