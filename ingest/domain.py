"""A domain: its name, its aggregates, and what is made of their events."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import KW_ONLY, dataclass
from dataclasses import field as dataclass_field
from functools import cached_property, reduce
from operator import or_
from pathlib import Path
from typing import Annotated, Any, cast

import pyarrow as pa
from pydantic import Discriminator, TypeAdapter

from ingest.aggregate import Aggregate
from ingest.code_digest import code_digest
from ingest.command import Command, command_type
from ingest.envelope import arrow_type, log_schema
from ingest.errors import DomainInvalid, NotAvailable
from ingest.policy import Declared, Policy, declared

NAME = r"[A-Za-z0-9_-]+"
"""Of a domain or an aggregate: a part of keys and flags."""


@dataclass(frozen=True, kw_only=True)
class Upcast:
    """How an event of one schema version becomes one of the next: SQL over the row's columns.

    An event class says its version by `schema_version: ClassVar[int] = 2`; without, it is 1.
    """

    event_type: str
    from_version: int
    columns: Mapping[str, str]
    """Column → SQL expression; every other column stays as it is."""
    retired: Mapping[str, type] = dataclass_field(default_factory=dict)
    """Columns that only older versions have, and their types."""


@dataclass(frozen=True)
class Domain:
    """Everything that the system has to know about a domain. Checked when it is made.

    Raises `DomainInvalid`, with what is wrong in one line.
    """

    name: str
    """Names the streams: `{shop-3}:commands`. Never change it while a log exists."""
    aggregates: tuple[Aggregate[Any, Any, Any], ...]
    policies: tuple[Policy, ...] = ()
    """What happens because something happened; see `ingest.policy`."""
    _: KW_ONLY
    read_models: Path | str | None = None
    """The folder with the domain's .sql files, or the package that has them beside its code.
    Without, the aggregates' tables are the only read models."""
    queries: str | None = None
    """The module with the domain's typed queries."""
    upcasts: tuple[Upcast, ...] = ()
    """For each event type one from every version before its present one."""

    def __post_init__(self) -> None:
        if not self.aggregates:
            raise DomainInvalid(f"domain {self.name} has no aggregates")
        if not isinstance(self.aggregates, tuple):
            raise DomainInvalid(
                f"domain {self.name} needs a tuple of aggregates; of one alone it is (cart,)"
            )
        for aggregate in self.aggregates:
            if not isinstance(aggregate, Aggregate):
                raise DomainInvalid(
                    f"domain {self.name}: {type(aggregate).__name__} is no Aggregate"
                )
        if not isinstance(self.policies, tuple):
            raise DomainInvalid(
                f"domain {self.name} needs a tuple of policies; of one alone it is (place,)"
            )
        for name in (self.name, *(a.name for a in self.aggregates)):
            if not re.fullmatch(NAME, name):
                raise DomainInvalid(f"the name {name!r} has others than letters, digits, - and _")
        # To DuckDB a name is the same in upper and lower case.
        _check_distinct("aggregates have the name", (a.name.lower() for a in self.aggregates))
        _check_distinct("aggregates have the table", (a.table.lower() for a in self.aggregates))
        _check_distinct(
            "aggregates decide", (c.__name__ for a in self.aggregates for c in a.commands)
        )
        _check_distinct("commands are named", map(command_type, self.commands))
        _check_distinct("aggregates have the event", (n for a in self.aggregates for n in a.events))
        for name in self.events:
            wanted = list(range(1, self.schema_version(name)))
            declared = sorted(u.from_version for u in self.upcasts if u.event_type == name)
            if wanted != declared:
                raise DomainInvalid(
                    f"event {name} has schema version {self.schema_version(name)}: it needs an"
                    f" Upcast from each version before, and has them from {declared}"
                )
        _check_policies(self)
        _check_upcasts(self)

    @cached_property
    def commands(self) -> tuple[type[Command], ...]:
        """Of all aggregates."""
        return tuple(command for aggregate in self.aggregates for command in aggregate.commands)

    @cached_property
    def events(self) -> Mapping[str, type]:
        """Of all aggregates: the name in the log → the class."""
        return {name: cls for a in self.aggregates for name, cls in a.events.items()}

    @cached_property
    def deciders(self) -> Mapping[type, Aggregate[Any, Any, Any]]:
        """Command class → the aggregate that decides it."""
        return {command: a for a in self.aggregates for command in a.commands}

    @cached_property
    def evolvers(self) -> Mapping[str, Aggregate[Any, Any, Any]]:
        """Event's name in the log → the aggregate that it happens to."""
        return {name: a for a in self.aggregates for name in a.events}

    @cached_property
    def declared_policies(self) -> tuple[Declared, ...]:
        """What each policy says of itself."""
        return tuple(map(declared, self.policies))

    @cached_property
    def reactions(self) -> Mapping[type, tuple[Policy, ...]]:
        """Event class → the policies that react to it."""
        found: dict[type, tuple[Policy, ...]] = {}
        for said in self.declared_policies:
            for cls in said.events:
                found[cls] = (*found.get(cls, ()), said.policy)
        return found

    @cached_property
    def _by_command(self) -> Mapping[str, Aggregate[Any, Any, Any]]:
        return {command_type(command): a for command, a in self.deciders.items()}

    def named_by(self, command: Mapping[str, Any]) -> Aggregate[Any, Any, Any] | None:
        """Which aggregate decides a command, given by its fields; the only one where there is one.

        None where that cannot be told.
        """
        named = command.get("type")
        found = self._by_command.get(named) if isinstance(named, str) else None
        return self.aggregates[0] if found is None and len(self.aggregates) == 1 else found

    def id_in(self, command: Mapping[str, Any]) -> str | None:
        """The id of the aggregate that a command, given by its fields, is for, if it says one."""
        aggregate = self.named_by(command)
        found = command.get(aggregate.key) if aggregate else None
        return found if isinstance(found, str) else None

    def aggregate(self, name: str | None) -> Aggregate[Any, Any, Any]:
        """The one of that name; with None the only one. Raises `NotAvailable`."""
        found = [a for a in self.aggregates if name in (None, a.name)]
        if len(found) != 1:
            names = ", ".join(a.name for a in self.aggregates)
            raise NotAvailable(
                f"there is no aggregate {name!r}; there are {names}" if name is not None
                else f"name one of the aggregates: {names}"
            )  # fmt: skip
        return found[0]

    @cached_property
    def schema(self) -> pa.Schema:
        """A row of this domain's log."""
        return log_schema(self.events, sends=bool(self.policies))

    @cached_property
    def stored_schema(self) -> pa.Schema:
        """A row as it may stand in the log's files: also with columns of older versions."""
        retired = {n: arrow_type(t) for u in self.upcasts for n, t in u.retired.items()}
        older = [(n, column) for n, column in retired.items() if n not in self.schema.names]
        return pa.schema([*self.schema, *older])

    def schema_version(self, event_type: str) -> int:
        """The version that this code writes; 1 for outcomes, which never change."""
        return int(getattr(self.events.get(event_type), "schema_version", 1))

    @property
    def module(self) -> str | None:
        """Where it is declared, if it was loaded by its name."""
        return self.__dict__.get("module")

    @cached_property
    def code_digest(self) -> str:
        """Of the code that its states and rows depend on, as it is when first asked."""
        return code_digest(self)

    @cached_property
    def validate_json(self) -> Callable[[bytes], Command]:
        """From a payload to a command; raises pydantic's `ValidationError`."""
        adapter: TypeAdapter[Command] = TypeAdapter(_union(self.commands))
        return adapter.validator.validate_json


def _check_distinct(what: str, names: Iterable[str]) -> None:
    found: set[str] = set()
    for name in names:
        if name in found:
            raise DomainInvalid(f"two {what} {name}; each has its own")
        found.add(name)


def _check_policies(domain: Domain) -> None:
    """Raises `DomainInvalid` where one reacts to, or sends, what no aggregate has."""
    happens = {cls: kind for kind in domain.aggregates for cls in kind.events.values()}
    for said in domain.declared_policies:
        if domain.policies.count(said.policy) > 1:
            raise DomainInvalid(
                f"policy {said.name} stands there twice, and would send everything twice"
            )
        for cls in said.events:
            if cls not in happens:
                raise DomainInvalid(
                    f"policy {said.name} reacts to {cls.__name__}, which is no event here"
                )
        for cls in (*said.sends, *said.defers):
            if cls not in (*domain.commands, Command):
                raise DomainInvalid(
                    f"policy {said.name} sends {cls.__name__}, which no aggregate here decides"
                )
        own = [happens[cls] for cls in said.events]
        for cls in said.defers:
            if cls is not Command and domain.deciders[cls] not in own:
                raise DomainInvalid(
                    f"policy {said.name} keeps {cls.__name__} for later, which is not for the"
                    " aggregate to which its events happen; let that one send it when it is time"
                )
        for kind in domain.aggregates:
            state = type(kind.initial)
            if state in said.states and state not in {type(k.initial) for k in own}:
                raise DomainInvalid(
                    f"policy {said.name}: Of[{state.__name__}] is not what its events happen to"
                )


def _check_upcasts(domain: Domain) -> None:
    """Raises `DomainInvalid` where an Upcast names an event or a column that there is not.

    Whether its SQL holds is for the read side to say; see `projections.upcast`.
    """
    kept: dict[str, pa.DataType] = {column.name: column.type for column in domain.schema}
    for step in domain.upcasts:
        where = f"the Upcast of {step.event_type} from version {step.from_version}"
        if step.event_type not in domain.events:
            raise DomainInvalid(
                f"{where}: there is no such event; there are {', '.join(domain.events)}"
            )
        for name, annotation in step.retired.items():
            try:
                column = arrow_type(annotation)
            except TypeError:
                raise DomainInvalid(f"{where} retires {name}: {annotation} is no type") from None
            if kept.setdefault(name, column) != column:
                raise DomainInvalid(
                    f"{where} retires {name} as {column}, and elsewhere it is {kept[name]}; a"
                    " column keeps its type: give the newer field a name of its own"
                )
    for step in domain.upcasts:
        for name in step.columns.keys() - kept.keys():
            raise DomainInvalid(
                f"the Upcast of {step.event_type} from version {step.from_version}: there is no"
                f" column {name}; name a field of an event, or one in retired={{…}}"
            )


def _union(commands: tuple[type[Command], ...]) -> Any:
    """The type of any of the commands, told apart by their field `type`."""
    if len(commands) == 1:
        return commands[0]
    either = reduce(or_, cast(Any, commands))
    return Annotated[either, Discriminator("type")]
