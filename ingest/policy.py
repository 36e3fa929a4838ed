"""What happens because something happened: policies, which send commands on an event.

A policy is a pure function, declared by its annotations:

    def place(event: CheckedOut, of: Of[Cart]) -> Iterator[PlaceOrder]:
        yield PlaceOrder(order_id=of.id, lines=of.state.lines)

It runs where its event is decided, and what it sends is in the log with the event, or neither is.
"""

from __future__ import annotations

import collections.abc
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Generic, TypeAlias, TypeVar, get_args, get_origin

from ingest.annotations import classes, name_of, parameter, parts, returned
from ingest.command import Command
from ingest.errors import DomainInvalid

S = TypeVar("S")
C = TypeVar("C", bound=Command, covariant=True)


@dataclass(frozen=True, slots=True)
class Of(Generic[S]):
    """The aggregate to which an event has happened."""

    id: str
    state: S
    """After the event."""


@dataclass(frozen=True, slots=True)
class Later(Generic[C]):
    """A command for the same aggregate, when so much time has passed since the event.

    A newer one of the same command takes its place; there is no other way to call it back, so its
    `decide` looks whether there is still something to do.
    """

    delay: timedelta
    command: C


Policy: TypeAlias = Callable[[Any, Of[Any]], Iterator[Command | Later[Command]]]


@dataclass(frozen=True, slots=True)
class Declared:
    """What a policy says of itself."""

    policy: Policy
    name: str
    events: tuple[type, ...]
    sends: tuple[type, ...]
    """Commands; `Command` itself where it does not say which."""
    defers: tuple[type, ...]
    """The same of those that are `Later`."""
    states: tuple[Any, ...]
    """Of the aggregates to which its events happen; none where it does not say."""


def declared(policy: Policy) -> Declared:
    """By its annotations. Raises `DomainInvalid` where they say less than is needed."""
    name = name_of(policy)
    where = f"policy {name}"
    of = parameter(policy, 1, where)
    if Of not in (of, get_origin(of)):
        raise DomainInvalid(
            f"{where}: its second parameter is what the event happened to, as Of[Cart], not {of}"
        )
    states = tuple(part for state in get_args(of) for part in parts(state))
    made = returned(policy, where)
    several = get_origin(made) in (Iterator, Iterable, Sequence, list, collections.abc.Generator)
    if not several or not get_args(made):
        raise DomainInvalid(
            f"{where} returns an Iterator of the commands that it sends, not {made}"
        )
    sends: list[type] = []
    defers: list[type] = []
    for part in parts(get_args(made)[0]):
        later = part is Later or get_origin(part) is Later
        said = get_args(part) or (Command,) if later else (part,)
        (defers if later else sends).extend(cls for arg in said for cls in classes(arg, where))
    for cls in (*sends, *defers):
        if not issubclass(cls, Command):
            raise DomainInvalid(f"{where} sends {cls.__name__}, which is no Command")
    events = classes(parameter(policy, 0, where), where)
    return Declared(policy, name, events, tuple(sends), tuple(defers), states)
