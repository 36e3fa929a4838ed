"""A subscription: the log's events from some position or time on, and then as they are committed.

    for happened in subscribe(since=token, types=["CheckedOut"]):
        …
        token = happened.token

In each partition events come in order, each once. Across partitions there is no order.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence

from ingest.command import partition_of
from ingest.domain import Domain
from ingest.errors import NotAvailable
from pipeline.deployment import Deployment
from pipeline.feed.begin import Since, begin
from pipeline.feed.events import LoggedEvent, logged_events
from pipeline.feed.follower import Part
from pipeline.feed.selection import Selection
from pipeline.feed.token import Token
from pipeline.log.log import Log
from pipeline.log.schemas import check
from pipeline.settings import Settings

LOOK_S = 0.05
"""From one look at an idle log to the next."""


def subscribe(
    since: Since = None,
    *,
    types: Sequence[str] = (),
    aggregate: str | None = None,
    aggregate_id: str | None = None,
    follow: bool = True,
    settings: Settings | None = None,
) -> Subscription:
    """Events from `since` on, of some types or of all, of one kind of aggregate, or of one alone.

    `since` is a token, a time of recording (in UTC where it has no offset), "now", partition →
    position, or None for the first event. Without `follow` it ends where the log ends now. To read
    needs no right to write anywhere.

    Raises `LogMismatch` where there is no log of the domain, for a token of another log, and for
    events that this code cannot read; `NotAvailable` for an event type or a kind that is none.
    """
    deployed = Deployment.open(settings or Settings())
    check(deployed.domain, deployed.log)
    return Subscription(
        deployed.domain,
        deployed.log,
        since,
        types=types,
        aggregate=aggregate,
        aggregate_id=aggregate_id,
        follow=follow,
    )


class Subscription:
    """What `subscribe` gives: iterate over it with `for` or, in asyncio, with `async for`.

    It knows how far it is. Whoever leaves a loop, also by an error or a cancelled task, goes on
    after the last event that was given with the next loop.
    """

    def __init__(
        self,
        domain: Domain,
        log: Log,
        since: Since = None,
        *,
        types: Sequence[str] = (),
        aggregate: str | None = None,
        aggregate_id: str | None = None,
        follow: bool = True,
    ) -> None:
        """As `subscribe`, of an opened log whose events the domain reads."""
        for name in types:
            if name not in domain.events:
                raise NotAvailable(
                    f"there is no event {name}; there are {', '.join(domain.events)}"
                )
        self.domain = domain
        self._log = log
        ends = {p: log.next_position(p) for p in range(log.partitions)}
        self._positions = begin(log, since, ends)
        positions = self._positions
        if aggregate_id is not None:
            only = partition_of(aggregate_id, log.partitions)
            positions = {only: positions[only]}
        self._selection = Selection(
            domain,
            log,
            positions,
            types=types,
            aggregate=domain.aggregate(aggregate).name if aggregate else None,
            aggregate_id=aggregate_id,
            until=None if follow else ends,
        )
        self._stopped = threading.Event()
        self._reading = threading.Lock()
        # A cancelled task's thread reads on: what it brings waits here for the next loop.
        self._part: Part | None = None
        self._events: deque[LoggedEvent] = deque()
        self._at_hand = False
        """Whether the part's events were made: one that cannot be is not passed over."""

    @property
    def token(self) -> str:
        """Where to go on after the last event that was given."""
        return str(Token.of(self._log.identity, self._positions))

    def stop(self) -> None:
        """End the loop after the event or part that was given. For any thread or signal handler."""
        self._stopped.set()

    def __iter__(self) -> Iterator[LoggedEvent]:
        """Events as they come; blocks while there is none."""
        while not self._stopped.is_set():
            if len(self._events) or self._read():
                yield self._give()
            elif self._selection.ended:
                return
            else:
                self._stopped.wait(LOOK_S)

    async def __aiter__(self) -> AsyncIterator[LoggedEvent]:
        """Events as they come; files are read in a thread, and nothing blocks the event loop."""
        while not self._stopped.is_set():
            if len(self._events) or await asyncio.to_thread(self._read):
                yield self._give()
            elif self._selection.ended:
                return
            else:
                await asyncio.sleep(LOOK_S)

    def parts(self) -> Iterator[Part]:
        """In place of events, rows of the log as of today's code; blocks while there are none.

        A part counts as given when the next one is asked for. Take either parts or events.
        """
        while not self._stopped.is_set():
            if (part := self._look()) is not None:
                yield part
                self._pass()
            elif self._selection.ended:
                return
            else:
                self._stopped.wait(LOOK_S)

    def tokens(self, part: Part) -> list[str]:
        """For each row of the part that is given, where to go on after it."""
        before, _, after = Token.of(self._log.identity, self._positions).around(part.partition)
        return [f"{before}{at + 1}{after}" for at in part.rows["position"].to_pylist()]

    def _give(self) -> LoggedEvent:
        event = self._events[0]
        self._positions[event.partition] = event.position + 1
        return self._events.popleft()

    def _read(self) -> bool:
        """Have events of the next part that has any; whether there are some now."""
        with self._reading:
            while not self._events and not self._stopped.is_set():
                if self._at_hand:
                    self._pass()
                part = self._look()
                if part is None:
                    break
                decoder = self._selection.decoder
                self._events.extend(logged_events(decoder, part.rows, self.tokens(part)))
                self._at_hand = True
            return len(self._events) > 0

    def _look(self) -> Part | None:
        """The part that is given, or else the next one."""
        self._part = self._part or self._selection.look()
        return self._part

    def _pass(self) -> None:
        """What is given is done with: its events, and what was left out after them."""
        if self._part is not None:
            self._positions[self._part.partition] = self._part.end
            self._part = None
            self._at_hand = False
