"""The events that somebody wants, out of all rows, in parts that are small enough to be objects."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from ingest.domain import Domain
from ingest.envelope import ENVELOPE, SYSTEM_TYPES
from pipeline.feed.follower import Follower, Part
from pipeline.log.log import Log
from pipeline.replay.decode import Decoder
from projections.relations import Positions

PART_ROWS = 4096
"""Events that are objects at one time."""


class Selection:
    """Events from `positions` on as rows of today's code; of those partitions alone."""

    def __init__(
        self,
        domain: Domain,
        log: Log,
        positions: Positions,
        *,
        types: Sequence[str] = (),
        aggregate: str | None = None,
        aggregate_id: str | None = None,
        until: Positions | None = None,
    ) -> None:
        """Of some types or of all, of one kind of aggregate or of all, of one aggregate or of all;
        with `until`, up to there.
        """
        self.decoder = Decoder(domain)
        self._types = pa.array(types, pa.string()) if types else None
        named = {"aggregate": aggregate, "aggregate_id": aggregate_id}
        self._named = {column: name for column, name in named.items() if name is not None}
        columns = self.decoder.columns_with(*ENVELOPE.names)
        self._follower = Follower(log, positions, columns, until)
        self._parts: deque[Part] = deque()

    @property
    def ended(self) -> bool:
        """Whether everything up to `until` was given."""
        return not self._parts and self._follower.ended

    def look(self) -> Part | None:
        """The next part; None where there is none now.

        A part without rows tells how far there was nothing that is wanted. Raises `LogDamaged` and
        `LogMismatch`, as the follower and the decoder do.
        """
        if not self._parts and (found := self._follower.look()) is not None:
            rows = self.decoder.current(found.rows.filter(self._wanted(found.rows)))
            for first in range(0, len(rows), PART_ROWS):
                some = rows.slice(first, PART_ROWS)
                end = some["position"][-1].as_py() + 1
                self._parts.append(Part(found.partition, end, some))
            self._parts.append(Part(found.partition, found.end, rows.slice(0, 0)))
        return self._parts.popleft() if self._parts else None

    def _wanted(self, rows: pa.Table) -> pa.ChunkedArray:
        if self._types is None:
            wanted = pc.invert(pc.is_in(rows["event_type"], pa.array(SYSTEM_TYPES)))
        else:
            wanted = pc.is_in(rows["event_type"], self._types)
        for column, name in self._named.items():
            wanted = pc.and_(wanted, pc.equal(rows[column], name))
        return wanted
