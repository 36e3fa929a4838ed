"""A domain's contract in print: JSON Schema for what is on the wire, and an AsyncAPI document.

The schemas come from the classes that read and write it, so they cannot fall behind.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from typing import Any, TypeAlias

import pyarrow as pa
from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, models_json_schema
from pydantic_core import core_schema, to_json

from ingest import event_contract
from ingest.columns.column import TIME
from ingest.columns.declared import column_of
from ingest.command import COMMAND_BYTES_MAX, Command, command_type
from ingest.domain import Domain
from ingest.envelope import ENVELOPE, ENVELOPE_ABOUT, LOG_KEY, field_types
from ingest.keys import REPLY_EXPIRES_S, partitions_key, reply_prefix
from ingest.outcome import Outcome

Schema: TypeAlias = dict[str, Any]
"""JSON Schema, or a document that holds some."""

DIALECT = GenerateJsonSchema.schema_dialect

_TIME: Schema = {"type": "string", "description": "UTC, to the microsecond, without an offset."}

_OPTIONAL = ("correlation_id", "causation_id")
_FROM_ONE = ("version", "schema_version")


def commands_schema(domain: Domain) -> Schema:
    """JSON Schema 2020-12 of the field `command` in a stream's entry."""
    about = (
        f"What the field `command` of an entry holds: one JSON object, {COMMAND_BYTES_MAX:,} bytes"
        " at most. Anything else is unreadable."
    )
    return _either(f"Commands of {domain.name}", about, *_commands(domain, "#/$defs/"))


def events_schema(domain: Domain) -> Schema:
    """JSON Schema 2020-12 of a row of the read models' relation `events`, as JSON."""
    about = "An event, with its envelope; columns that only other events have are null."
    return _either(f"Events of {domain.name}", about, *_events(domain, "#/$defs/"))


def outcomes_schema(domain: Domain) -> Schema:
    """JSON Schema 2020-12 of the field `outcome` of an entry in a stream of replies."""
    title = f"Outcomes of {domain.name}"
    return {"$schema": DIALECT, **_outcome(), "title": title}


def asyncapi(domain: Domain) -> Schema:
    """An AsyncAPI 3.0 document: the streams, what is on them, and what is in the log."""
    at = "#/components/schemas/"
    commands, command_parts = _commands(domain, at)
    events, event_parts = _events(domain, at)
    about = "The entry's one field, `command`, holds this as JSON."
    correlated: Schema = {"correlationId": {"location": "$message.payload#/correlation_id"}}
    messages = {name: _message(name, about, correlated, at) for name in commands}
    outcome = _message("Outcome", "The entry's field `outcome` holds this as JSON.", {}, at)
    out = {
        "CloudEvent": _message(
            "CloudEvent", "The entry's one field, `event`, holds this as JSON.", {}, at
        ),
        "SubscribedEvent": _message("SubscribedEvent", "A line.", {}, at),
    }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": f"{domain.name} on Foldlog",
            "version": version("foldlog"),
            "description": "Every command has exactly one outcome. Sending a command_id again"
            " changes nothing, and answers with the first outcome.",
        },
        "defaultContentType": "application/json",
        "channels": {
            "commands": _commands_channel(domain, messages),
            "outcomes": _outcomes_channel(domain),
            **event_contract.channels(domain),
        },
        "operations": {
            "handleCommand": {
                "action": "receive",
                "channel": {"$ref": "#/channels/commands"},
                "messages": [{"$ref": f"#/channels/commands/messages/{name}"} for name in commands],
                "reply": {
                    "address": {"location": "$message.payload#/reply_to"},
                    "channel": {"$ref": "#/channels/outcomes"},
                    "messages": [{"$ref": "#/channels/outcomes/messages/Outcome"}],
                },
            },
            **event_contract.operations(),
        },
        "components": {
            "messages": {**messages, "Outcome": outcome, **out},
            "schemas": command_parts
            | event_parts
            | commands
            | events
            | event_contract.schemas(events, at)
            | {"Outcome": _outcome()},
        },
    }


def _message(name: str, about: str, more: Schema, at: str) -> Schema:
    return {
        "title": name,
        "contentType": "application/json",
        "description": about,
        **more,
        "payload": {"$ref": f"{at}{name}"},
    }


def _commands_channel(domain: Domain, messages: Iterable[str]) -> Schema:
    fields = ", ".join(f"{a.key} of {a.name}" for a in domain.aggregates)
    return {
        "address": "{stream}:commands",
        "title": "Commands, a Redis Stream for each partition",
        "description": "XADD one field, `command`. An aggregate belongs in the partition"
        " crc32(id) % N, with the unsigned CRC-32 of zlib and gzip, of the id's UTF-8 bytes, or"
        f" where it holds {{…}} of what is inside. The id is the field {fields}; the key"
        f" `{partitions_key(domain.name)}` holds N.",
        "parameters": {
            "stream": {
                "description": f"`{{{domain.name}-P}}` for partition P, from 0; the braces"
                " are part of the key, a hash tag of Redis Cluster.",
                "default": f"{{{domain.name}-0}}",
                "examples": [f"{{{domain.name}-{p}}}" for p in range(2)],
            }
        },
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
    }


def _outcomes_channel(domain: Domain) -> Schema:
    return {
        "address": f"{reply_prefix(domain.name)}{{sender}}",
        "title": "Outcomes, a Redis Stream for each sender who asks for them",
        "description": f"Expires {REPLY_EXPIRES_S:,} s after the last outcome.",
        "parameters": {
            "sender": {"description": "Chosen by the sender, who names it in `reply_to`."}
        },
        "messages": {"Outcome": {"$ref": "#/components/messages/Outcome"}},
    }


CONTRACTS: Mapping[str, Callable[[Domain], Schema]] = {
    "asyncapi": asyncapi,
    "commands": commands_schema,
    "events": events_schema,
    "outcomes": outcomes_schema,
}
"""What `foldlog schema` prints, by name."""


def _either(title: str, about: str, kinds: dict[str, Schema], parts: dict[str, Schema]) -> Schema:
    return {
        "$schema": DIALECT,
        "title": title,
        "description": about,
        "oneOf": [{"$ref": f"#/$defs/{name}"} for name in kinds],
        "$defs": {**parts, **kinds},
    }


def _commands(domain: Domain, at: str) -> tuple[dict[str, Schema], dict[str, Schema]]:
    """The commands' schemas by name, and of types that they have in common."""
    found, parts = models_json_schema(
        [(command, "validation") for command in domain.commands],
        ref_template=f"{at}{{model}}",
        schema_generator=_OnTheWire,
    )
    defined = parts.get("$defs", {})
    commands = {}
    for (cls, _), ref in found.items():
        schema = defined.pop(ref["$ref"].removeprefix(at))
        assert issubclass(cls, Command)
        # Its default is for those who make it in Python; on the wire it says which command this is.
        others = (name for name in schema["required"] if name not in ("type", "command_id"))
        required = ["type", "command_id", *others]
        schema["properties"]["command_id"].pop("default")
        schema["properties"]["reply_to"]["anyOf"][0]["pattern"] = (
            f"^{re.escape(reply_prefix(domain.name))}"
        )
        commands[_key(command_type(cls))] = schema | {"required": required}
    return commands, defined


_DAY, _CLOCK = r"\d{4}-\d{2}-\d{2}", r"[0-2]\d:[0-5]\d:[0-5]\d(\.\d+)?"

_WITH_OFFSET = (  # and in UTC within the years 1 to 9999
    rf"^(?!0000|0001-01-01.*[+]|9999-12-31.*\d-){_DAY}[Tt ]{_CLOCK}([Zz]|[+-][0-2]\d:?[0-5]\d)$"
)


class _OnTheWire(GenerateJsonSchema):
    """Values as a command may have them.

    The formats of times alone would allow leap seconds, and ask for an offset where none may be.
    """

    def datetime_schema(self, schema: core_schema.DatetimeSchema) -> Schema:
        if schema.get("tz_constraint") == "naive":
            return {"type": "string", "pattern": f"^(?!0000){_DAY}[Tt ]{_CLOCK}$"}
        return {**super().datetime_schema(schema), "pattern": _WITH_OFFSET}

    def time_schema(self, schema: core_schema.TimeSchema) -> Schema:
        return {"type": "string", "pattern": f"^{_CLOCK}$"}

    def decimal_schema(self, schema: core_schema.DecimalSchema) -> Schema:
        found = super().decimal_schema(schema)
        for kind in found.get("anyOf", ()):
            if kind["type"] == "string":
                kind["pattern"] = r"^-?\d+(\.\d+)?$"
        return found


class _AsColumns(GenerateJsonSchema):
    """Values as the relation `events` shows them; see `ingest.columns`."""

    def datetime_schema(self, schema: core_schema.DatetimeSchema) -> Schema:
        return dict(_TIME)

    def time_schema(self, schema: core_schema.TimeSchema) -> Schema:
        return {"type": "string", "description": "A time of day, without an offset."}

    def timedelta_schema(self, schema: core_schema.TimedeltaSchema) -> Schema:
        return {"type": "integer", "description": "Microseconds."}

    def decimal_schema(self, schema: core_schema.DecimalSchema) -> Schema:
        return {"type": "number"}

    def enum_schema(self, schema: core_schema.EnumSchema) -> Schema:
        column = column_of(schema["cls"])
        kind = "integer" if pa.types.is_integer(column.type) else "string"
        return {"type": kind, "enum": [column.to_log(member) for member in schema["cls"]]}


def _events(domain: Domain, at: str) -> tuple[dict[str, Schema], dict[str, Schema]]:
    """The events' schemas by name, as rows of the log, and of types that they have in common."""
    adapters: list[tuple[str, Any, TypeAdapter[Any]]] = [
        (name, "serialization", TypeAdapter(cls)) for name, cls in domain.events.items()
    ]
    # A command may have parts of the same names, in which times and numbers look otherwise.
    found, parts = TypeAdapter.json_schemas(
        adapters, ref_template=f"{at}{{model}}Column", schema_generator=_AsColumns
    )
    defined = {f"{name}Column": schema for name, schema in parts.get("$defs", {}).items()}
    events = {}
    for (name, _), schema in found.items():
        ref = schema.get("$ref")
        own = defined.pop(ref.removeprefix(at)) if ref else schema
        enveloped = {column.name: _enveloped(column) for column in ENVELOPE}
        properties = enveloped | {"event_type": {"const": name}} | own.get("properties", {})
        events[_key(name)] = {
            "type": "object",
            "title": name,
            "properties": properties,
            "required": list(properties),
            "additionalProperties": {"type": "null"},
            # Text, since strict validators take no keyword that they do not know.
            "$comment": to_json(
                {
                    LOG_KEY: {
                        "event_type": name,
                        "schema_version": domain.schema_version(name),
                        "fields": field_types(domain.events[name]),
                        "aggregate": domain.evolvers[name].name,
                    }
                }
            ).decode(),
        } | ({"description": own["description"]} if "description" in own else {})
    return events, defined


def _enveloped(column: pa.Field) -> Schema:
    """A column of the envelope as events, unlike outcomes, have it."""
    about = ENVELOPE_ABOUT[column.name]
    if column.type == TIME:
        return {**_TIME, "description": f"{about} {_TIME['description']}"}
    if pa.types.is_integer(column.type):
        found: Schema = {"type": "integer", "minimum": int(column.name in _FROM_ONE)}
    else:
        found = {"type": ["string", "null"] if column.name in _OPTIONAL else "string"}
    return found | ({"description": about} if about else {})


def _outcome() -> Schema:
    return TypeAdapter(Outcome).json_schema(mode="serialization")


def _key(name: str) -> str:
    """A name as AsyncAPI allows it for a key."""
    return re.sub(r"[^\w.-]", "_", name)
