"""The Bytewax sinks: replies to the senders, and commits to the read models. Adapter code only."""

from __future__ import annotations

import logging
from collections.abc import Callable

import redis
from bytewax.outputs import (
    DynamicSink,
    FixedPartitionedSink,
    StatefulSinkPartition,
    StatelessSinkPartition,
)

from ingest.streams import LOST, command_stream, reply_and_trim
from pipeline.fold import Decided
from projections.live import Live
from projections.writer import Commit

logger = logging.getLogger("foldlog")


class _RepliesPart(StatelessSinkPartition[Decided]):
    def __init__(self, client: redis.Redis, domain: str) -> None:
        self._client = client
        self._domain = domain

    def write_batch(self, items: list[Decided]) -> None:
        for decided in items:
            if decided.last_stream_id is None:
                continue
            stream = command_stream(self._domain, decided.partition)
            try:
                reply_and_trim(self._client, decided.replies, stream, decided.last_stream_id)
            except LOST as error:
                # The log has the outcomes: a sender that asks again is told, the next commit trims.
                logger.warning("%s: %d replies were lost (%s)", stream, len(decided.replies), error)

    def close(self) -> None:
        self._client.close()


class Replies(DynamicSink[Decided]):
    """Tells each sender its outcome, and trims the streams, from whichever process committed."""

    def __init__(self, connect: Callable[[], redis.Redis], domain: str) -> None:
        self._connect = connect
        self._domain = domain

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _RepliesPart:
        return _RepliesPart(self._connect(), self._domain)


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
