"""The contract of a domain's rules: three pure things.

The shape is Jérémie Chassaing's Decider: https://thinkbeforecoding.com/post/2021/12/17/functional-event-sourcing-decider
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Generic, TypeVar

S = TypeVar("S")
"""State of one aggregate. Never changed in place."""

C = TypeVar("C")
"""Commands: the union of the domain's command models."""

E = TypeVar("E")
"""Events: the union of the domain's event classes."""


@dataclass(frozen=True, slots=True)
class Decider(Generic[S, C, E]):
    """`decide` returns the events that a command causes, or raises `Rejected`.

    All three are pure: no clock, no I/O, no randomness, so that deciding the same input again gives
    the same events. `evolve` accepts every event that `decide` ever returned.
    """

    initial: S
    decide: Callable[[S, C], Sequence[E]]
    evolve: Callable[[S, E], S]

    def fold(self, events: Iterable[E]) -> S:
        """The state after all the events of an aggregate."""
        return reduce(self.evolve, events, self.initial)
