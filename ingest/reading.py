"""From a payload to a command, or to the reason why it is none.

Each payload is validated on its own: joined into one JSON array, one producer's bytes could run
into another's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json

from ingest.command import IDENTIFIER_LENGTH_MAX, Command
from ingest.domain import Domain

REASON_LENGTH_MAX = 300
"""Characters of a reason that are kept: a hostile payload must not write its own essay."""

PAYLOAD_KEPT_BYTES_MAX = 4096
"""Bytes of an unreadable payload that the log keeps."""


NO_ID = "command_id: Field required"


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A payload that is no command, with whatever could be made out of it."""

    reason: str
    command_id: str | None = None
    aggregate: str | None = None
    aggregate_id: str | None = None
    correlation_id: str | None = None
    causation_id: str | None = None
    reply_to: str | None = None


def reader(domain: Domain, bytes_max: int) -> Callable[[bytes | None], Command | Unreadable]:
    """A function from a payload to a command, or to an `Unreadable` that says why. Never raises.

    A payload of None stands for an entry without the field `command`.
    """
    validate_json = domain.validate_json
    tagged = len(domain.commands) > 1

    def read(payload: bytes | None) -> Command | Unreadable:
        if payload is None:
            return Unreadable("the entry has no field named command")
        if len(payload) > bytes_max:
            return Unreadable(f"the payload has {len(payload)} bytes; the limit is {bytes_max}")
        try:
            command = validate_json(payload)
        except ValidationError as error:
            return _made_out(domain, payload, first_reasons(error, tagged))
        return command if command.command_id else _made_out(domain, payload, NO_ID)

    return read


def first_reasons(error: ValidationError, tagged: bool) -> str:
    """What is wrong, field by field, in one line. With `tagged`, the command's type comes before
    the field in pydantic's path.
    """
    reasons = []
    for problem in error.errors(include_url=False, include_context=False, include_input=False)[:3]:
        field = ".".join(str(part) for part in problem["loc"][1 if tagged else 0 :])
        reasons.append(f"{field}: {problem['msg']}" if field else problem["msg"])
    return "; ".join(reasons)[:REASON_LENGTH_MAX]


def _made_out(domain: Domain, payload: bytes, reason: str) -> Unreadable:
    """Keep the envelope where the payload at least is a JSON object, so that its sender is told."""
    try:
        found: Any = from_json(payload)
    except ValueError:
        return Unreadable(reason)
    if not isinstance(found, dict):
        return Unreadable(reason)

    def identifier(field: str) -> str | None:
        value = found.get(field)
        fits = isinstance(value, str) and 0 < len(value) <= IDENTIFIER_LENGTH_MAX
        return value if fits else None

    aggregate = domain.named_by(found)
    return Unreadable(
        reason,
        command_id=identifier("command_id"),
        aggregate=aggregate.name if aggregate else None,
        aggregate_id=identifier(aggregate.key) if aggregate else None,
        correlation_id=identifier("correlation_id"),
        causation_id=identifier("causation_id"),
        reply_to=identifier("reply_to"),
    )
