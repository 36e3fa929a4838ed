"""The Bytewax sinks: replies to the senders, and commits to the read models. Adapter code only."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from bytewax.outputs import (
    DynamicSink,
    FixedPartitionedSink,
    StatefulSinkPartition,
    StatelessSinkPartition,
)

from ingest.outcome import Outcome
from pipeline.fold import Decided
from projections.live import Live
from projections.writer import Commit

Respond: TypeAlias = Callable[[int, list[tuple[str, Outcome]]], None]


class _RepliesPart(StatelessSinkPartition[Decided]):
    def __init__(self, respond: Respond) -> None:
        self._respond = respond

    def write_batch(self, items: list[Decided]) -> None:
        for decided in items:
            if decided.last_stream_id is not None:
                self._respond(decided.partition, decided.replies)


class Replies(DynamicSink[Decided]):
    """Tells each sender its outcome, and trims the streams, from whichever process committed."""

    def __init__(self, respond: Respond) -> None:
        """`respond` is called with a partition, for each of its batches in order."""
        self._respond = respond

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _RepliesPart:
        return _RepliesPart(self._respond)


class _ReadModelsPart(StatefulSinkPartition[Commit, None]):
    def __init__(self, live: Live) -> None:
        self._live = live

    def write_batch(self, values: list[Commit]) -> None:
        for commit in values:
            self._live.put(commit)

    def snapshot(self) -> None:
        """Nothing: the read models hold their positions themselves."""

    def close(self) -> None:
        self._live.close()


class ReadModels(FixedPartitionedSink[Commit, None]):
    """One part in all the processes: DuckDB files have one writer."""

    PART = "read_models"

    def __init__(self, make: Callable[[], Live]) -> None:
        self._make = make

    def list_parts(self) -> list[str]:
        return [self.PART]

    def part_fn(self, item_key: str) -> int:
        return 0

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> _ReadModelsPart:
        return _ReadModelsPart(self._make())
