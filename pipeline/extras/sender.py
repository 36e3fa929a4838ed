"""The demo's producer: a thread that sends what the log and the streams do not hold yet."""

from __future__ import annotations

import json
import threading
import time
from contextlib import suppress

from ingest.client import connect
from ingest.command import partition_of
from ingest.keys import command_stream
from ingest.producer import Producer
from pipeline.deployment import Deployment
from pipeline.extras.baskets import COMMAND_ID, commands

BACKLOG_MAX = 200_000
"""Commands that the producer is ahead of the pipeline at most: they wait in Redis' memory."""


class Sender(threading.Thread):
    """Sends the baskets' commands, or the first `limit` of them, and never far ahead."""

    def __init__(self, deployed: Deployment, limit: int | None) -> None:
        super().__init__(name="demo-producer", daemon=True)
        self._deployed = deployed
        self._limit = limit
        self.before = 0
        """Commands of this demo that were there already."""
        self.sent = 0
        """Commands sent since it was started."""
        self.backlog = 0
        """Set by the watcher; the sender waits while it is large."""
        self.finished = False
        """Whether all has been sent."""
        self.stopping = False
        """Set by whoever wants it to end early."""
        self.error: BaseException | None = None
        """Why it has ended before it had finished."""

    def run(self) -> None:
        """What the thread does."""
        try:
            last = _last_numbers(self._deployed)
            number = 0
            redis_url = self._deployed.settings.reachable_redis
            with Producer(redis_url, self._deployed.domain) as producer:
                for chunk in commands(self._limit):
                    numbered = enumerate(chunk, number)
                    new = [
                        c for i, c in numbered if i > last[partition_of(c["cart_id"], len(last))]
                    ]
                    number += len(chunk)
                    self.before += len(chunk) - len(new)
                    while self.backlog > BACKLOG_MAX and not self.stopping:
                        time.sleep(0.02)
                    if self.stopping:
                        return
                    self.sent += producer.send_many(new)
                    self.backlog += len(new)
            self.finished = True
        except BaseException as error:
            self.error = error


def _last_numbers(deployed: Deployment) -> list[int]:
    """For each partition the number of the last demo command in its log or stream, or -1."""
    log = deployed.log
    client = connect(deployed.settings.reachable_redis)
    numbers = []
    for partition in range(log.partitions):
        ids = [i for rows in log.read(partition, 0, ["position", "command_id"])
               for i in rows["command_id"].to_pylist()]  # fmt: skip
        stream = command_stream(deployed.domain.name, partition)
        for _, fields in client.xrange(stream):  # type: ignore[union-attr]
            with suppress(ValueError, KeyError, TypeError):  # not one of ours
                ids.append(json.loads(fields[b"command"])["command_id"])  # type: ignore[index]
        ours = [i.removeprefix(COMMAND_ID) for i in ids if str(i).startswith(COMMAND_ID)]
        numbers.append(max(map(int, ours), default=-1))
    client.close()
    return numbers
