"""What every producer puts into Redis, and what the outcomes that come back mean to its caller."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeAlias

from pydantic_core import PydanticSerializationError, to_json

from ingest.command import (
    COMMAND_BYTES_MAX,
    IDENTIFIER_LENGTH_MAX,
    Command,
    command_type,
    partition_of,
)
from ingest.domain import Domain
from ingest.errors import (
    CommandInvalid,
    CommandTooLarge,
    NotAvailable,
    OutcomeTimeout,
    Rejected,
    one_line,
)
from ingest.keys import command_stream, reply_prefix
from ingest.outcome import Outcome

PIPELINE_COMMANDS = 1000
"""Commands that `send_many` puts into one round trip."""

CommandLike: TypeAlias = Command | Mapping[str, Any]
"""A domain's command, or its fields by name."""

Sent: TypeAlias = tuple[str, bytes]
"""A stream's key and the payload for it."""


class Wire:
    """From a command to a stream's key and a payload."""

    def __init__(self, domain: Domain, partitions: bytes | int | None) -> None:
        """`partitions` is what Redis holds at `keys.partitions_key`. Raises `NotAvailable`."""
        if partitions is None:
            raise NotAvailable(
                f"this Redis knows no pipeline for the domain {domain.name!r};"
                " start `foldlog up` first"
            )
        self._domain = domain
        self._reply_prefix = reply_prefix(domain.name)
        self.streams = [command_stream(domain.name, p) for p in range(int(partitions))]
        """The streams' keys, by partition."""

    def encode(self, command: CommandLike, reply_to: str | None = None) -> tuple[str, Sent]:
        """The command's id, and what goes where. Raises `CommandInvalid`, `CommandTooLarge`."""
        fields: dict[str, Any]
        if isinstance(command, Command):
            fields = command.model_dump(mode="json", exclude_none=True)
            if not command.command_id:
                del fields["command_id"]
        else:
            fields = {**command}
        fields.setdefault("command_id", str(uuid.uuid4()))
        if reply_to is not None:
            fields["reply_to"] = reply_to
        aggregate_id = self._domain.id_in(fields)
        if aggregate_id is None:
            raise CommandInvalid(self._missing(fields))
        command_id = fields.get("command_id")
        if not isinstance(command_id, str) or not 0 < len(command_id) <= IDENTIFIER_LENGTH_MAX:
            raise CommandInvalid(
                f"a command_id is a string of 1 to {IDENTIFIER_LENGTH_MAX} characters;"
                " leave it out for a random one"
            )
        try:
            payload = to_json(fields)
        except PydanticSerializationError as error:
            raise CommandInvalid(f"the command cannot be JSON: {one_line(error)}") from None
        if len(payload) > COMMAND_BYTES_MAX:
            raise CommandTooLarge(
                f"the command has {len(payload)} bytes; the limit is {COMMAND_BYTES_MAX}"
            )
        return command_id, (self.streams[partition_of(aggregate_id, len(self.streams))], payload)

    def _missing(self, fields: Mapping[str, Any]) -> str:
        """Why a command, given by its fields, goes nowhere."""
        aggregate = self._domain.named_by(fields)
        if aggregate:
            return f"a command needs the field {aggregate.key}, a string"
        known = ", ".join(map(command_type, self._domain.commands))
        return f"a command needs the field type, one of {known}"

    def chunks(self, commands: Iterable[CommandLike]) -> Iterator[list[Sent]]:
        """The commands in order, as many at a time as go into one round trip."""
        encoded = (self.encode(command)[1] for command in commands)
        while chunk := list(itertools.islice(encoded, PIPELINE_COMMANDS)):
            yield chunk

    def reply_key(self) -> str:
        """The key of a stream of replies that nobody else has."""
        return self._reply_prefix + uuid.uuid4().hex


def put(pipe: Any, sent: Iterable[Sent]) -> Any:
    """Add the entries to a pipeline of redis-py's, or its asyncio's; gives that pipeline."""
    for stream, payload in sent:
        pipe.xadd(stream, {"command": payload})
    return pipe


def accepted(outcome: Outcome) -> Outcome:
    """The outcome. Raises `Rejected`, with the reason, where it is another than accepted."""
    if outcome.outcome != "accepted":
        raise Rejected(outcome.reason or outcome.outcome)
    return outcome


def out_of_time(commands: int, timeout: float) -> OutcomeTimeout:
    """The error for so many commands that have no outcome after `timeout` seconds."""
    return OutcomeTimeout(
        f"no outcome for {commands} command(s) within {timeout:g} s;"
        " is the pipeline running? They are sent, and will be handled"
    )
