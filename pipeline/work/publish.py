"""Events on Redis Streams, for consumers in any language: read from the log, after the commit.

Whoever publishes follows the log like any other reader and keeps nothing: the last id of a
partition's stream says how far it is. So nothing waits for Redis here, and whatever goes wrong is
tried again.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence

import redis

from ingest.client import open_client
from ingest.diagnosis import unreachable
from ingest.errors import FoldlogError, LogMismatch
from ingest.event_stream import EventStream
from ingest.line import ANSWER_S
from ingest.outage import LOST, PAUSES
from ingest.stop import Stop
from pipeline.deployment import Deployment
from pipeline.feed.cloud_events import CloudEvents
from pipeline.feed.selection import Selection

logger = logging.getLogger("foldlog")

LOOK_S = 0.05
"""From one look at the log to the next."""

ADDED_TOGETHER = 512
"""Events in one step of Redis, which serves nobody else meanwhile: a few milliseconds."""


class Publisher:
    """Brings the streams of a share's partitions up to the log. Each call is one attempt."""

    def __init__(self, deployed: Deployment, share: Sequence[int], stop: Stop) -> None:
        """Once `stop` is requested, it leaves what is far behind to the next start."""
        self._deployed = deployed
        self._url = deployed.settings.reachable_redis
        self._share = share
        self._stop = stop
        self._streams: list[_Stream] = []
        self._told: set[str] = set()

    def __call__(self) -> None:
        """Publish what is new. What goes wrong is said once, and tried again after a pause."""
        self._streams = self._streams or self._open()
        while self._round() and not self._stop.requested:
            pass

    def _open(self) -> list[_Stream]:
        client = open_client(self._url, ANSWER_S)
        cloud_events = CloudEvents(self._deployed.domain, self._deployed.log)
        return [_Stream(self._deployed, p, client, cloud_events) for p in self._share]

    def _round(self) -> bool:
        """A part of each partition that has one; whether any had."""
        published = False
        for stream in self._streams:
            if time.monotonic() < stream.not_before:
                continue
            try:
                published = stream.publish() or published
                stream.succeeded()
            except redis.RedisError as error:
                stream.failed(str(unreachable(self._url, error)))
                if isinstance(error, LOST):
                    break  # it is away for the others, too
            except (FoldlogError, OSError) as error:
                stream.failed(str(error))
        self._tell({stream.wrong for stream in self._streams if stream.wrong})
        return published

    def _tell(self, wrong: set[str]) -> None:
        for line in sorted(wrong - self._told):
            logger.warning("events are not published, and will be later: %s", line)
        if self._told and not wrong:
            logger.info("events are published again")
        self._told = wrong


class _Stream:
    """One partition's events on their way from the log to Redis."""

    def __init__(
        self, deployed: Deployment, partition: int, client: redis.Redis, cloud_events: CloudEvents
    ) -> None:
        self._domain = deployed.domain
        self._log = deployed.log
        self._events_max = deployed.settings.events_stream_max
        self._partition = partition
        self._stream = EventStream(client, self._domain.name, partition, self._events_max)
        self._cloud_events = cloud_events
        self._selection: Selection | None = None
        """None where the stream has to be asked how far it is."""
        self._next = 0
        self.not_before = 0.0
        """When to try next, by `time.monotonic`."""
        self.wrong = ""
        """Why the last attempt has failed; empty where it has not."""
        self._failures = 0

    def failed(self, why: str) -> None:
        """An attempt has failed: a pause begins, longer after each failure."""
        self._failures += 1
        self.not_before = time.monotonic() + PAUSES.compute(self._failures)
        self.wrong = why

    def succeeded(self) -> None:
        """The next failure is a new one."""
        self._failures, self.wrong = 0, ""

    def publish(self) -> bool:
        """Bring the next part of the log into the stream; False where there was none.

        Raises redis-py's errors, and `LogMismatch` where the stream is ahead of the log.
        """
        selection, self._selection = self._selection or self._begin(), None
        part = selection.look()
        if part is None:
            self._selection = selection
            return False
        for first in range(0, len(part.rows), ADDED_TOGETHER):
            events = self._cloud_events.of(part.rows.slice(first, ADDED_TOGETHER))
            if not self._stream.add(self._next, events):
                return True  # another one publishes, or Redis has lost some: it is asked again
            self._next = events[-1][0] + 1
        self._selection = selection
        return True

    def _begin(self) -> Selection:
        begin, last = self._stream.end()
        end = self._log.next_position(self._partition)
        if begin > end:
            raise self._not_of_this_log(
                f"goes on at position {begin}, and the log of partition {self._partition} ends at"
                f" {end}"
            )
        # The log may have grown beyond it since.
        if last is not None and _known_by(last) != self._known_by(begin - 1):
            raise self._not_of_this_log(f"holds another event at position {begin - 1} than the log")
        self._next = begin
        # What an empty stream could not hold need not be added to it first.
        begin = begin or max(0, end - self._events_max)
        return Selection(self._domain, self._log, {self._partition: begin})

    def _known_by(self, position: int) -> tuple[object, ...] | None:
        """The same of the log's event at that position; None where it has none there."""
        only = {self._partition: position}, {self._partition: position + 1}
        part = Selection(self._domain, self._log, only[0], until=only[1]).look()
        events = self._cloud_events.of(part.rows) if part is not None else []
        return _known_by(events[0][1]) if events else None

    def _not_of_this_log(self, why: str) -> LogMismatch:
        return LogMismatch(
            f"{self._stream.key} {why}: it is another log's, or the log has lost events; delete the"
            f" stream (redis-cli DEL '{self._stream.key}')"
        )


def _known_by(event: bytes) -> tuple[object, ...]:
    """What tells an event from others, and stays as it is when its type changes; empty where it is
    none of ours.
    """
    try:
        found = json.loads(event)
        return found["source"], found["id"], found["data"]["stream_id"]
    except (ValueError, LookupError, TypeError):
        return ()
