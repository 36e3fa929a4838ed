"""A row of the log: the envelope, and beside it one typed nullable column for each event field.

Everything that happened to a command is a row. Most rows are the domain's events; some event types
are the system's own. Three of them give every command an outcome in the log, in order:

    CommandRejected    a rule said no: `reason`, and the command as it was sent in `payload`
    CommandUnreadable  it was no valid command: `reason`, and its first bytes in `payload`
    NothingChanged     it was accepted, and caused no event

Two more are of what policies send, in the commit that holds the cause; `payload` is the command:

    CommandSent        to an aggregate in `to_partition`
    CommandDeferred    to the aggregate itself, when it is `due_at`

These names, and the columns' names and types, are the storage format.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Any
from uuid import UUID

import pyarrow as pa

from ingest.columns.column import TIME
from ingest.columns.declared import column_of, record_of
from ingest.errors import DomainInvalid

REJECTED = "CommandRejected"
UNREADABLE = "CommandUnreadable"
NOTHING_CHANGED = "NothingChanged"
OUTCOME_TYPES = (REJECTED, UNREADABLE, NOTHING_CHANGED)
SENT = "CommandSent"
DEFERRED = "CommandDeferred"
SYSTEM_TYPES = (*OUTCOME_TYPES, SENT, DEFERRED)
"""The event types that are not a domain's."""

_ENVELOPE = (
    ("partition", pa.int32(), ""),
    ("position", pa.int64(), "0, 1, 2 … in the partition."),  # without gaps
    # Of a command that was sent, where that stands: 2/118 is position 118 of partition 2.
    ("stream_id", pa.string(), "The command's, in its Redis Stream."),
    ("event_type", pa.string(), ""),
    ("aggregate", pa.string(), "Which kind of aggregate it happened to."),
    ("aggregate_id", pa.string(), ""),
    ("version", pa.int64(), "The aggregate's, after it."),  # 1, 2, 3 …; null for outcomes
    ("command_id", pa.string(), ""),
    ("correlation_id", pa.string(), ""),
    ("causation_id", pa.string(), ""),
    ("recorded_at", TIME, "When Redis had the command."),  # the time in the stream id
    ("occurred_at", TIME, "As its sender says, else recorded_at."),
    ("schema_version", pa.int16(), "Of the event's fields."),
)
ENVELOPE = pa.schema([(name, column) for name, column, _ in _ENVELOPE])
"""What every row has, whatever its event type."""

ENVELOPE_ABOUT = {name: about for name, _, about in _ENVELOPE}
"""The envelope's columns → what a contract in print says of each; often nothing."""


@dataclass(frozen=True, slots=True)
class Sending:
    """What rows of a policy's commands have beside the envelope."""

    to_partition: int
    hops: int
    """How many sends have led to it, since the last deadline."""
    due_at: datetime | None


OUTCOME_COLUMNS = pa.schema([("reason", pa.string()), ("payload", pa.binary())])

SENDING_COLUMNS = pa.schema([("to_partition", pa.int64()), ("hops", pa.int64()), ("due_at", TIME)])
"""Those of `Sending`; the log of a domain without policies has none of them."""

LOG_KEY = "x-log"
"""Under which a contract in print says what an event's fields are in the log."""

FOLDED_COLUMNS = ("aggregate_id", "version", "first_at", "last_at")
"""What an aggregate's table has, or is made with, besides its key and columns."""

AS, OR_NULL = " as ", " | null"
"""In the text of a field's type: what its column stands for, and whether None is a value of it."""


def arrow_type(annotation: Any) -> pa.DataType:
    """The column type for a field's annotation. Raises `TypeError` where there is none."""
    return column_of(annotation).type


def optional(cls: type, name: str) -> bool:
    """Whether None is a value of a dataclass' field."""
    return record_of(cls).columns[name].optional


def columns_of(cls: type) -> dict[str, pa.DataType]:
    """A dataclass' fields as columns. Raises `DomainInvalid`, which names the field."""
    return {name: column.type for name, column in record_of(cls).columns.items()}


def field_types(cls: type) -> dict[str, str]:
    """A dataclass' fields as text, for print and for the log.

    Their columns' types, as in `int64`, `int64 | null`, or `string as Enum` where not every text is
    a value.
    """
    hints = typing.get_type_hints(cls)
    return {
        name: f"{column}{_stands_for(hints[name])}{OR_NULL if optional(cls, name) else ''}"
        for name, column in columns_of(cls).items()
    }


def _stands_for(annotation: Any) -> str:
    """Said where a column's type does not tell what its values are."""
    for alternative in (annotation, *typing.get_args(annotation)):
        if isinstance(alternative, type):
            for kind in (Enum, UUID, timedelta):
                if issubclass(alternative, kind):
                    return f"{AS}{kind.__name__}"
    return ""


def event_columns(events: Mapping[str, type]) -> dict[str, pa.DataType]:
    """The columns of all event types together: the same name must have the same type."""
    together: dict[str, pa.DataType] = {}
    taken = {*ENVELOPE.names, *SENDING_COLUMNS.names, *OUTCOME_COLUMNS.names}
    spelled: dict[str, str] = {}
    for event_type, cls in events.items():
        for name, column in columns_of(cls).items():
            if name.lower() in taken:
                raise DomainInvalid(
                    f"{event_type}.{name}: the log has a column of that name; rename the field"
                )
            if spelled.setdefault(name.lower(), name) != name:
                raise DomainInvalid(
                    f"{event_type}.{name} is {spelled[name.lower()]} elsewhere; to SQL that is the"
                    " same name: spell it in one way"
                )
            if together.setdefault(name, column) != column:
                raise DomainInvalid(
                    f"{event_type}.{name} is {column} here and {together[name]} in another event;"
                    " use one type or another name"
                )
    return together


def log_schema(events: Mapping[str, type], *, sends: bool = False) -> pa.Schema:
    """The Arrow schema of a row: envelope, the events' columns, then `reason` and `payload`.

    With `sends`, also the columns of what policies send.
    """
    body = pa.schema(list(event_columns(events).items()))
    return pa.schema([*ENVELOPE, *body, *(SENDING_COLUMNS if sends else ()), *OUTCOME_COLUMNS])
