"""Events of the domain, each with where it stands in the log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa

from ingest.columns.arrays import values_of
from ingest.columns.declared import column_of
from pipeline.replay.decode import Decoder

_TIME = column_of(datetime)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedEvent:
    """An event as the log has it. Times are in UTC."""

    partition: int
    position: int
    stream_id: str
    event_type: str
    aggregate: str
    """Which kind of aggregate it happened to."""
    aggregate_id: str
    version: int
    """The aggregate's, after it."""
    command_id: str | None
    """None where a policy has sent the command."""
    correlation_id: str | None
    causation_id: str | None
    recorded_at: datetime
    occurred_at: datetime
    schema_version: int
    """Of the event's fields, as this code has them."""
    event: Any
    """What `decide` made: an object of the domain's own class."""
    token: str
    """Where to go on after it."""


_PLAIN = [
    "partition", "position", "stream_id", "event_type", "aggregate", "aggregate_id", "version",
    "command_id", "correlation_id", "causation_id", "schema_version",
]  # fmt: skip
_TIMES = ["recorded_at", "occurred_at"]


def logged_events(decoder: Decoder, rows: pa.Table, tokens: Sequence[str]) -> list[LoggedEvent]:
    """Each row's event, in order, with its token. Raises `LogMismatch` as the decoder does."""
    columns = [
        *(rows[name].to_pylist() for name in _PLAIN),
        *(map(_TIME.from_log, values_of(rows[name])) for name in _TIMES),
        decoder.events(rows),
        tokens,
    ]
    names = [*_PLAIN, *_TIMES, "event", "token"]
    return [
        LoggedEvent(**dict(zip(names, values, strict=True)))
        for values in zip(*columns, strict=True)
    ]
