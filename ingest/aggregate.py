"""One kind of aggregate: three pure rules, declared by their annotations.

The shape is Jérémie Chassaing's Decider: https://thinkbeforecoding.com/post/2021/12/17/functional-event-sourcing-decider
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from functools import cached_property, reduce
from typing import Any, Generic, TypeVar, cast

from ingest.annotations import classes, is_text, parameter, returned
from ingest.columns.record import has_fields
from ingest.command import Command, command_type
from ingest.envelope import FOLDED_COLUMNS, SYSTEM_TYPES, columns_of
from ingest.errors import DomainInvalid
from ingest.events import event_name

S = TypeVar("S")
"""State of one aggregate. Never changed in place."""

C = TypeVar("C")
"""Commands: the union of the aggregate's command models."""

E = TypeVar("E")
"""Events: the union of the aggregate's event classes."""


@dataclass(frozen=True, kw_only=True)
class Aggregate(Generic[S, C, E]):
    """A kind of aggregate. `decide`'s second parameter is annotated with the union of its commands,
    `evolve`'s with the union of its events.

    `decide` returns the events that a command causes, or raises `Rejected`. All rules are pure: no
    clock, no I/O, no randomness, so that deciding the same input again gives the same events.
    `evolve` accepts every event that `decide` ever returned.
    """

    name: str
    """What the log calls it. Never change it while a log exists."""
    key: str
    """The commands' field that holds the aggregate's id, and the key of its table."""
    initial: S
    decide: Callable[[S, C], Sequence[E]]
    evolve: Callable[[S, E], S]
    table: str
    """The read model that has one row for each of these aggregates."""
    row: Callable[[S], Any] | None = None
    """From a state to what the table shows: a dataclass or a named tuple. Without, the state."""

    def __post_init__(self) -> None:
        for command in self.commands:
            if self.key not in command.model_fields:
                raise DomainInvalid(f"{command.__name__} has no field {self.key}")
            field = command.model_fields[self.key]
            where = f"{command.__name__}.{self.key} names the aggregate: it"
            if not is_text(field.annotation):
                raise DomainInvalid(f"{where} is text, not {field.annotation}")
            if field.validation_alias is not None:
                raise DomainInvalid(f"{where} has no other name, as {field.validation_alias}")
        for name in self.events:
            if name in SYSTEM_TYPES:
                raise DomainInvalid(f"event {name}: the log itself uses that name")
        self._check_row()

    @cached_property
    def commands(self) -> tuple[type[Command], ...]:
        """What it decides."""
        found = classes(parameter(self.decide, 1, self._where), self._where)
        for cls in found:
            if not issubclass(cls, Command):
                raise DomainInvalid(f"{self._where}: {cls.__name__} is no Command")
            command_type(cls)
        return cast(tuple[type[Command], ...], found)

    @cached_property
    def events(self) -> Mapping[str, type]:
        """What happens to it: the name in the log → the class."""
        found: dict[str, type] = {}
        for cls in classes(parameter(self.evolve, 1, self._where), self._where):
            if not is_dataclass(cls):
                raise DomainInvalid(
                    f"{self._where}: event {cls.__name__} is no dataclass; put @event above it"
                )
            if found.setdefault(event_name(cls), cls) is not cls:
                raise DomainInvalid(f"{self._where}: two events are named {event_name(cls)}")
        return found

    @cached_property
    def row_type(self) -> type:
        """What a row of the table is."""
        if self.row is None:
            return type(self.initial)
        (*others, found) = classes(returned(self.row, self._where), self._where)
        if others:
            raise DomainInvalid(f"{self._where}: its rows are of one class, not of several")
        return found

    def shown(self, state: S) -> Any:
        """A state as the table shows it."""
        return state if self.row is None else self.row(state)

    def fold(self, events: Iterable[E]) -> S:
        """The state after all the events of an aggregate."""
        return reduce(self.evolve, events, self.initial)

    @property
    def _where(self) -> str:
        return f"aggregate {self.name}"

    def _check_row(self) -> None:
        """Raises `DomainInvalid` where the table cannot have the row's columns."""
        where = f"read model {self.table}: {self.row_type.__name__}"
        if not has_fields(self.row_type):
            raise DomainInvalid(f"{where} must be a dataclass or a named tuple")
        taken = {name.lower() for name in (self.key, *FOLDED_COLUMNS)}
        for name in columns_of(self.row_type):
            if name.lower() in taken:
                raise DomainInvalid(
                    f"{where}.{name}: the read model has a column {name.lower()} already; rename"
                    " the field"
                )
            taken.add(name.lower())  # to DuckDB a name is the same in upper and lower case
