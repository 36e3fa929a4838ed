"""What a command causes beside events: commands that are sent to an aggregate, or kept for later.

A send is a row of the commit that holds its cause, and its id is where it stands: `2/118` is the
row at position 118 of partition 2. Whoever handles it says so in `stream_id`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from pydantic_core import from_json

from ingest.annotations import name_of
from ingest.command import Command, partition_of
from ingest.domain import Domain
from ingest.envelope import DEFERRED, SENT
from ingest.errors import DomainInvalid, Rejected
from ingest.policy import Later, Of, Policy
from ingest.stream_id import RECORDED_AT_MAX_MS
from pipeline.decide.aggregates import Key

EPOCH = datetime.fromtimestamp(0, UTC)
MICROSECOND = timedelta(microseconds=1)

HOPS_MAX = 32
"""A send that is caused by a send, and so on, without a deadline between them."""
AT_ONCE = timedelta()
"""What is kept for later for no longer than this is no deadline."""

_NOT_SENT = {"command_id", "reply_to", "occurred_at", "correlation_id", "causation_id"}
"""Of a command: what its row says already, or nobody needs."""

MADE_TOGETHER = 5_000
"""A compacted file may have a million, and their rows take more memory than the file."""

COLUMNS = [
    "position", "event_type", "aggregate", "aggregate_id", "correlation_id", "causation_id",
    "recorded_at", "occurred_at", "to_partition", "hops", "due_at", "payload",
]  # fmt: skip
"""What to read of the log for `sends_in`."""


@dataclass(frozen=True, slots=True)
class Send:
    """A command that was sent to an aggregate, as its row has it."""

    partition: int
    """Whose log holds it."""
    position: int
    key: Key
    """The aggregate that it is for."""
    to_partition: int
    hops: int
    due_us: int | None
    """When it is to be handled, in µs since 1970, where it is a deadline."""
    payload: bytes
    correlation_id: str | None
    causation_id: str | None
    recorded_us: int
    occurred_at: datetime

    @property
    def source(self) -> str:
        """What names it in the log."""
        return f"{self.partition}/{self.position}"

    @property
    def command_type(self) -> str:
        """Its command's name."""
        return str(from_json(self.payload)["type"])


class Said(NamedTuple):
    """What a policy has said, before it has a row."""

    key: Key
    to_partition: int
    hops: int
    due_us: int | None
    payload: bytes


class Reactions:
    """What a domain's policies make of its events."""

    def __init__(self, domain: Domain, partitions: int) -> None:
        self._policies = domain.reactions
        self._deciders = domain.deciders
        self._partitions = partitions

    def __contains__(self, event_class: type) -> bool:
        return event_class in self._policies

    def to(self, event: Any, key: Key, state: Any, hops: int, recorded_us: int) -> Iterator[Said]:
        """What follows from an event that `hops` sends have led to.

        Raises `Rejected` for one send too many, and `DomainInvalid` for one that cannot be sent.
        """
        of = Of(key[1], state)
        for policy in self._policies[type(event)]:
            for said in policy(event, of):
                later = said if isinstance(said, Later) else None
                command = said.command if isinstance(said, Later) else said
                target = self._target(command, policy)
                if later and target != key:
                    raise DomainInvalid(
                        f"policy {name_of(policy)} keeps {type(command).__name__} for later"
                        " for another aggregate than that to which the event has happened"
                    )
                passed = 0 if later and later.delay > AT_ONCE else hops + 1
                if passed > HOPS_MAX:
                    raise Rejected(
                        f"{type(command).__name__} would be the last of more than {HOPS_MAX}"
                        " commands that cause each other; let a deadline be between them"
                    )
                due_us = None
                if later:
                    due_us = recorded_us + later.delay // MICROSECOND
                    due_us = max(0, min(due_us, RECORDED_AT_MAX_MS * 1000))
                to = partition_of(target[1], self._partitions)
                yield Said(target, to, passed, due_us, _payload(command))

    def _target(self, command: Command, policy: Policy) -> Key:
        kind = self._deciders.get(type(command))
        if kind is None:
            raise DomainInvalid(
                f"policy {name_of(policy)} sends {type(command).__name__}, which no aggregate"
                " decides"
            )
        return kind.name, getattr(command, kind.key)


def due_at(send: Send, now_us: int) -> Send:
    """A deadline as it is handled now: it has occurred when it was due."""
    assert send.due_us is not None, "a deadline has its time"
    return replace(send, recorded_us=now_us, occurred_at=EPOCH + send.due_us * MICROSECOND)


def _payload(command: Command) -> bytes:
    kept = _NOT_SENT if command.expected_version is not None else {*_NOT_SENT, "expected_version"}
    return command.model_dump_json(exclude=kept).encode()


def sends_in(partition: int, rows: pa.Table) -> Iterator[Send]:
    """The sends among rows of a partition's log, deadlines included; they have `COLUMNS`.

    None where they are of before the domain had policies, and lack some.
    """
    if "to_partition" not in rows.schema.names:
        return
    sends = rows.filter(pc.is_in(rows["event_type"], pa.array([SENT, DEFERRED])))
    for part in sends.to_batches(MADE_TOGETHER):
        for row in part.to_pylist():
            yield _send(partition, row)


def _send(partition: int, row: Mapping[str, Any]) -> Send:
    due = row["due_at"]
    return Send(
        partition,
        row["position"],
        (row["aggregate"], row["aggregate_id"]),
        row["to_partition"],
        row["hops"],
        None if due is None else _us(due),
        row["payload"],
        row["correlation_id"],
        row["causation_id"],
        _us(row["recorded_at"]),
        row["occurred_at"].replace(tzinfo=UTC),
    )


def _us(at: datetime) -> int:
    """In µs since 1970, of a time as Arrow gives it, in UTC without saying so."""
    return (at.replace(tzinfo=UTC) - EPOCH) // MICROSECOND
