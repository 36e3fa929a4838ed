"""What a partition's writer remembers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from ingest.outcome import Outcome
from ingest.stream_id import recorded_us
from pipeline.decide.aggregates import Aggregates, Key, Versioned
from pipeline.decide.deadlines import Deadlines
from pipeline.decide.outcomes import First, Outcomes
from pipeline.decide.sends import Send
from pipeline.log.inputs import Inputs


@dataclass(slots=True)
class Partition:
    """What a partition's writer remembers. All of it comes back from the log."""

    number: int
    next_position: int = 0
    aggregates: Aggregates = field(default_factory=Aggregates)
    outcomes: Outcomes = field(default_factory=Outcomes)
    inputs: Inputs = field(default_factory=Inputs)
    deadlines: Deadlines = field(default_factory=Deadlines)
    recorded_us: int = 0
    """Of its last row: the partition's own time, which never goes back."""

    def apply(self, decided: Decided) -> None:
        """Move on to what a batch has come to."""
        self.next_position += len(decided.rows)
        self.aggregates.update(decided.changed)
        self.outcomes.add(decided.outcomes, decided.rows, self.next_position)
        self.inputs = decided.inputs
        self.recorded_us = max(self.recorded_us, decided.recorded_us)
        for send in decided.handled:
            if send.partition == self.number:
                self.deadlines.handled(send.position)
        for send in decided.sends:
            if send.due_us is not None:
                self.deadlines.add(send)

    def has_outcome(self, stream_id: bytes, command_id: str | None) -> bool:
        """Whether a command that stands in an entry has an outcome already."""
        self.outcomes.restore(recorded_us(stream_id))
        return command_id is not None and self.outcomes.seen(command_id)


@dataclass(frozen=True, slots=True)
class Decided:
    """A batch's effect: rows for the log, and what follows from them once they are committed."""

    owner: Partition
    """Whose batch it was."""
    first: int
    rows: pa.Table
    changed: dict[Key, Versioned]
    outcomes: dict[str, First]
    replies: list[tuple[str, Outcome]]
    not_accepted: Counter[str]
    """How many commands came to nothing: rejected, unreadable, duplicate."""
    inputs: Inputs
    """How far the log has read, with the batch."""
    recorded_us: int
    """The latest time that any of its commands was recorded."""
    sends: Sequence[Send]
    """What its events have sent, deadlines included."""
    handled: Sequence[Send]
    """Of what was sent to the partition, what the batch has handled."""
    entries: int
    """How many of the stream's it has handled."""
