"""A domain: its name, its commands, events and rules, and the row that shows a state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, is_dataclass
from dataclasses import field as dataclass_field
from functools import cached_property, reduce
from operator import or_
from pathlib import Path
from typing import Annotated, Any, Literal, cast, get_args, get_origin

import pyarrow as pa
from pydantic import Discriminator, TypeAdapter

from ingest.code_digest import code_digest
from ingest.command import Command
from ingest.decider import Decider
from ingest.envelope import FOLDED_COLUMNS, OUTCOME_TYPES, arrow_type, columns_of, log_schema
from ingest.errors import DomainInvalid


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


@dataclass(frozen=True, kw_only=True)
class Domain:
    """Everything that the system has to know about a domain. Checked when it is made."""

    name: str
    """Names the streams: `{cart-3}:commands`. Never change it while a log exists."""
    id_field: str
    """The commands' field that holds the aggregate's id, and the folded read model's key."""
    commands: tuple[type[Command], ...]
    events: Mapping[str, type]
    """Event type in the log → dataclass. The names are the storage format, the classes are not."""
    decider: Decider[Any, Any, Any]
    folded: str
    """The name of the read model that has one row for each aggregate."""
    row: Callable[[Any], Any]
    """From a state to a dataclass: the folded read model's own columns."""
    row_type: type
    read_models: Path | str | None = None
    """The folder with the domain's .sql files, or the package that has them beside its code.
    Without, the folded read model is the only one."""
    queries: str | None = None
    """The module with the domain's typed queries."""
    upcasts: tuple[Upcast, ...] = ()
    """For each event type one from every version before its present one."""
    event_types: dict[type, str] = dataclass_field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "event_types", {cls: name for name, cls in self.events.items()})
        for command in self.commands:
            if self.id_field not in command.model_fields:
                raise DomainInvalid(f"{command.__name__} has no field {self.id_field}")
            command_type(command)
        for name, cls in self.events.items():
            if not is_dataclass(cls):
                raise DomainInvalid(f"event {name}: {cls.__name__} must be a dataclass")
            if name in OUTCOME_TYPES:
                raise DomainInvalid(f"event {name}: the log itself uses that name")
            wanted = list(range(1, self.schema_version(name)))
            declared = sorted(u.from_version for u in self.upcasts if u.event_type == name)
            if wanted != declared:
                raise DomainInvalid(
                    f"event {name} has schema version {self.schema_version(name)}: it needs an"
                    f" Upcast from each version before, and has them from {declared}"
                )
        _check_row(self)
        _check_upcasts(self)

    @cached_property
    def schema(self) -> pa.Schema:
        """A row of this domain's log."""
        return log_schema(self.events)

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


def _check_row(domain: Domain) -> None:
    """Raises `DomainInvalid` where the folded read model cannot have the row's columns."""
    where = f"read model {domain.folded}: {getattr(domain.row_type, '__name__', domain.row_type)}"
    if not is_dataclass(domain.row_type):
        raise DomainInvalid(f"{where} must be a dataclass")
    taken = {name.lower() for name in (domain.id_field, *FOLDED_COLUMNS)}
    for name in columns_of(domain.row_type):
        if name.lower() in taken:
            raise DomainInvalid(
                f"{where}.{name}: the read model has a column {name.lower()} already; rename the"
                " field"
            )
        taken.add(name.lower())  # to DuckDB a name is the same in upper and lower case


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


def command_type(command: type[Command]) -> str:
    """The name of a command on the wire: the one value of its field `type`."""
    field = command.model_fields.get("type")
    annotation = field.annotation if field else None
    if get_origin(annotation) is not Literal or len(get_args(annotation)) != 1:
        raise DomainInvalid(
            f'{command.__name__} needs a field like type: Literal["{command.__name__}"]'
        )
    return str(get_args(annotation)[0])
