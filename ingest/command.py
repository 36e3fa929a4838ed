"""What every command carries: its fields, the values they may have, the partition it belongs to."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from inspect import get_annotations
from typing import Annotated, Any, Literal, TypeAlias, get_args, get_origin
from zlib import crc32

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    GetCoreSchemaHandler,
    StringConstraints,
)
from pydantic_core import CoreSchema

from ingest.errors import DomainInvalid

IDENTIFIER_LENGTH_MAX = 100
"""Characters of an id or a key."""

COMMAND_BYTES_MAX = 65_536
"""What producers send at most, and the pipeline reads unless its settings say otherwise."""

Identifier: TypeAlias = Annotated[
    str, StringConstraints(min_length=1, max_length=IDENTIFIER_LENGTH_MAX)
]
"""An id or a key: 1 to 100 characters."""

TIME_MIN, TIME_MAX = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
"""The years 1 to 9999 in UTC: what a datetime with an offset may be beyond, and no column holds."""


def _settle(
    part: Any, handler: GetCoreSchemaHandler, source: type[BaseModel], seen: set[str]
) -> None:
    """Let each datetime in a schema have an offset and be one in UTC, where it says nothing else.

    So a time that one sender leaves without an offset cannot meet another that has one in `decide`.
    An integer has 64 bits, as in a column; a contract in print can say so too. Raises
    `DomainInvalid` for a datetime in a model that pydantic has built already.
    """
    if isinstance(part, list | tuple):
        for inner in part:
            _settle(inner, handler, source, seen)
    if not isinstance(part, dict):
        return
    if part.get("type") == "definition-ref" and part["schema_ref"] not in seen:
        seen.add(part["schema_ref"])
        with suppress(LookupError):  # a class that is being made, and settles its own
            _settle(handler.resolve_ref_schema(part), handler, source, seen)
    built = part.get("cls")
    if built is not source and "__pydantic_validator__" in getattr(built, "__dict__", {}):
        if built is not None and _says_nothing(part):
            raise DomainInvalid(
                f"{source.__name__} holds {built.__name__}, which has a datetime: annotate that"
                " AwareDatetime or NaiveDatetime, or make it a plain dataclass"
            )
        return
    if part.get("type") == "datetime" and part.setdefault("tz_constraint", "aware") == "aware":
        part.setdefault("ge", TIME_MIN)
        part.setdefault("le", TIME_MAX)
    if part.get("type") == "int":
        if "gt" not in part:
            part.setdefault("ge", -(2**63))
        if "lt" not in part:
            part.setdefault("le", 2**63 - 1)
    for name, inner in part.items():
        if name not in ("default", "metadata"):
            _settle(inner, handler, source, seen)


def _says_nothing(part: Any) -> bool:
    """Whether some datetime in a schema says nothing of its offset."""
    if isinstance(part, dict):
        bare = part.get("type") == "datetime" and "tz_constraint" not in part
        inner = [value for name, value in part.items() if name not in ("default", "metadata")]
        return bare or any(map(_says_nothing, inner))
    return isinstance(part, list | tuple) and any(map(_says_nothing, part))


_Model: TypeAlias = type[BaseModel]  # within a command, `type` is a field


class Command(BaseModel):
    """What every command carries besides its own fields. A domain's commands derive from it.

    A subclass adds the aggregate's id and fields of its own. Its name is the command's name on the
    wire; a line `type: Literal["…"] = "…"` keeps an old one after a rename.

    A field that says `datetime` takes no time without an offset: `NaiveDatetime` does, and nothing
    else. A float is finite, unless its `Field` says `allow_inf_nan=True`.
    """

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        serialize_by_alias=True,  # as it is read
    )

    type: str = ""
    """Which command it is."""
    command_id: Identifier = ""
    """Sent again, the same one changes nothing and answers with the first outcome. Whoever sends
    a command has to give it one."""
    occurred_at: AwareDatetime | None = None
    """When it happened, as the producer says; the stream id's time where it says nothing."""
    correlation_id: Identifier | None = None
    """Kept in the log: what this belongs to."""
    causation_id: Identifier | None = None
    """Kept in the log: what this came from."""
    expected_version: int | None = None
    """Rejected unless the aggregate is at this version; 0 means that it must be new."""
    reply_to: Identifier | None = None
    """The key of a Redis Stream to which the outcome goes; see `ingest.keys`."""

    def __init_subclass__(cls, **options: Any) -> None:
        own = get_annotations(cls)
        if "type" not in own:  # before pydantic makes fields of what is annotated
            cls.__annotations__ = {**own, "type": Literal[cls.__name__]}
            cls.type = cls.__name__
        super().__init_subclass__(**options)

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: _Model, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        schema = handler(source)
        _settle(schema, handler, source, set())
        return schema


def partition_of(aggregate_id: str, partitions: int) -> int:
    """The partition of an aggregate. Producers in any language must compute the same.

    Where the id has `{…}`, only what is inside counts, as in Redis Cluster: `{ada}/cart` and
    `{ada}/order-9` share a partition.
    """
    if "{" in aggregate_id:
        inside, closed, _ = aggregate_id.partition("{")[2].partition("}")
        if inside and closed:
            aggregate_id = inside
    return crc32(aggregate_id.encode()) % partitions


def command_type(command: type[Command]) -> str:
    """The name of a command on the wire: the one value of its field `type`."""
    annotation = command.model_fields["type"].annotation
    if get_origin(annotation) is not Literal or len(get_args(annotation)) != 1:
        raise DomainInvalid(
            f'{command.__name__} needs a field like type: Literal["{command.__name__}"], or none'
            " of that name"
        )
    return str(get_args(annotation)[0])
