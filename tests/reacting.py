"""Workers of a domain with policies, in one process and without Redis, for tests to interleave."""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from secrets import token_hex
from typing import Any

import pyarrow.parquet as pq

from ingest.command import Command
from ingest.domain import Domain
from ingest.entries import Batch, Entry
from ingest.stream_id import as_numbers
from pipeline.decide.partition import Decided
from pipeline.deployment import Deployment
from pipeline.log.log import Log
from pipeline.react.inbox import Inbox
from pipeline.settings import Settings
from pipeline.work.steps import Worker

NOBODY = "redis://127.0.0.1:1"
BEGINS_MS = 1_700_000_000_000


class Workers:
    """Each has a share of the partitions. Streams are lists here, and Redis's clock is a number."""

    def __init__(
        self,
        folder: Path,
        domain: Domain,
        shares: Sequence[Sequence[int]],
        inbox: Callable[[Log], Inbox] = Inbox,
    ) -> None:
        self.domain = domain
        self.shares = shares
        self.partitions = sum(map(len, shares))
        self.now_ms = BEGINS_MS
        self.streams: dict[int, list[Entry]] = defaultdict(list)
        settings = Settings(data=folder, redis_url=NOBODY, snapshot_rows=25, batch_max=10)
        log = Log.create(folder / "events", partitions=self.partitions, domain=domain.name)
        self.deployed = Deployment(settings, domain, log)
        self.log = log
        self._inbox = inbox
        self._sent = 0
        self.workers = [self._started(share) for share in shares]

    def _started(self, share: Sequence[int]) -> Worker:
        worker = Worker(self.deployed, share, f"of a test, {token_hex(4)}")
        worker._inbox = self._inbox(self.log)
        worker._inbox._look_at = float("-inf")
        worker.take(0, 1).readers()
        now_us = partial(self._now_us, worker)
        worker._now_us = now_us  # type: ignore[method-assign]
        return worker

    def _now_us(self, worker: Worker, partition: int) -> int:
        return max(self.now_ms * 1000, worker._owned[partition].recorded_us)

    def send(self, command: Command) -> int:
        """XADD it; to which partition."""
        self._sent += 1
        known = command.model_copy(update={"command_id": f"c{self._sent}"})
        key = self.domain.deciders[type(command)].key
        partition = zlib.crc32(getattr(command, key).encode()) % self.partitions
        stream_id = f"{self.now_ms}-{self._sent}".encode()
        self.streams[partition].append((stream_id, known.model_dump_json().encode(), ()))
        return partition

    def kill(self, number: int) -> None:
        """Forget all that a worker has in memory, and start it again."""
        self.workers[number] = self._started(self.shares[number])

    def decide(self, worker: Worker, partition: int, most: int = 5) -> Decided | None:
        """One batch of a partition: what was sent to it, and some entries of its stream."""
        assert worker._inbox is not None
        worker._inbox._look_at = 0.0
        worker.readers()
        owned = worker._owned.get(partition)
        if owned is None or partition not in worker._readers:
            return None
        last = as_numbers(owned.inputs.stream_id)
        new = [e for e in self.streams[partition] if as_numbers(e[0].decode()) > last]
        if not new and not worker.waits(partition):
            return None
        return worker.decide(Batch(partition, new[:most]))

    def step(self, number: int, partition: int, most: int = 5) -> bool:
        """Decide and commit one batch; whether there was one."""
        worker = self.workers[number]
        decided = self.decide(worker, partition, most)
        return decided is not None and worker.commit(decided) is not None

    def settle(self) -> None:
        """Everything that waits is handled, by everyone."""
        for worker in self.workers:
            for number in worker._open_at:
                worker._open_at[number] = 0.0
        owned = [(n, p) for n, share in enumerate(self.shares) for p in share]
        while sum(self.step(*each) for each in owned):
            pass

    def rows(self, partition: int) -> list[dict[str, Any]]:
        """A partition's log, read without any of the product's code."""
        found: dict[int, dict[str, Any]] = {}
        for path in sorted((self.log.folder / f"partition={partition}").glob("*.parquet")):
            for row in pq.read_table(path).to_pylist():
                same = found.setdefault(row["position"], row)
                assert same == row, "a position is held twice, and differs"
        assert ([*found] and sorted(found) == [*range(len(found))]) or not found
        return [found[position] for position in sorted(found)]


def check_sends(workers: Workers, *, complete: bool) -> None:
    """A partition's rows with source p/x are the outcomes of exactly the sends to it in the log of
    p, each once, in order: of the first ones, or if it is `complete` of all.
    """
    logs = {p: workers.rows(p) for p in range(workers.partitions)}
    for to, rows in logs.items():
        handled: dict[int, list[int]] = defaultdict(list)
        last = None
        for row in rows:
            source = row["stream_id"]
            if "/" in source and source != last and row["event_type"] is not None:
                sender, position = map(int, source.split("/"))
                if logs[sender][position]["event_type"] == "CommandSent":
                    handled[sender].append(position)
            last = source
        for sender, sent in logs.items():
            expected = [
                row["position"]
                for row in sent
                if row["event_type"] == "CommandSent" and row["to_partition"] == to
            ]
            found = handled[sender]
            assert found == expected[: len(found)], f"{sender} → {to}: {found}, sent {expected}"
            assert not complete or found == expected, f"{sender} → {to}: lost {expected}"
