"""A token says where to go on in a log: how far each partition was read, as text.

3fa92c61b0d4@0:119,2:8    of the log whose identity begins so: partition 0 goes on at position
                          119, partition 2 at 8, and every other one at 0
0:119,2:8                 the same, in whichever log it is used
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ingest.errors import LogMismatch, NotAvailable

_PAIR = r"\d{1,9}:\d{1,19}"
"""No log has more partitions or positions."""

_SHAPE = re.compile(rf"(?:([0-9a-f]{{12}})@)?((?:{_PAIR}(?:,{_PAIR})*)?)", re.ASCII)

_SHOWN = 12
"""Digits of a log's identity: enough to tell two logs apart, and not to make a token long."""


@dataclass(frozen=True, slots=True)
class Token:
    """The position that each partition goes on at; one that is not named begins at 0."""

    positions: Mapping[int, int]
    log: str | None = None
    """The beginning of the log's identity; None stands for any log."""

    @classmethod
    def of(cls, identity: str, positions: Mapping[int, int]) -> Token:
        """A token of the log with that identity."""
        return cls(positions, identity[:_SHOWN])

    @classmethod
    def parse(cls, text: str) -> Token:
        """Raises `NotAvailable` for text that is none."""
        found = _SHAPE.fullmatch(text)
        if not text or found is None:
            raise NotAvailable(
                f"{text!r} is no token; take one that came with an event, or write positions as"
                " PARTITION:POSITION,PARTITION:POSITION"
            )
        pairs = [pair.split(":") for pair in found[2].split(",") if pair]
        return cls({int(partition): int(position) for partition, position in pairs}, found[1])

    def __str__(self) -> str:
        before, at, after = self.around(None)
        return f"{before}{at}{after}"

    def around(self, partition: int | None) -> tuple[str, str, str]:
        """The text before the next position of a partition, that position, and the text after it.

        So the tokens of many events of one partition, which differ in it alone, cost little.
        """
        parts = sorted((p, n) for p, n in self.positions.items() if n and p != partition)
        head = f"{self.log}@" if self.log else ""
        if partition is None:
            return head + ",".join(f"{p}:{n}" for p, n in parts), "", ""
        before = "".join(f"{p}:{n}," for p, n in parts if p < partition)
        after = "".join(f",{p}:{n}" for p, n in parts if p > partition)
        return f"{head}{before}{partition}:", str(self.positions.get(partition, 0)), after

    def check(self, identity: str, ends: Mapping[int, int]) -> None:
        """Raises `LogMismatch` where it is of another log, or the log ends before it."""
        if self.log is not None and not identity.startswith(self.log):
            raise LogMismatch(
                f"the token is of another log, {self.log}…, and this one is"
                f" {identity[:_SHOWN]}…; name the other with --data, or begin without it"
            )
        for partition, position in self.positions.items():
            if partition not in ends or position < 0:
                raise LogMismatch(
                    f"there is no position {position} of partition {partition}: the log's"
                    f" partitions are 0 to {len(ends) - 1}, and positions begin with 0"
                )
            if position > ends[partition]:
                raise LogMismatch(
                    f"the token goes on at position {position} of partition {partition}, and the"
                    f" log ends at {ends[partition]}: it has lost what was read; begin at a time"
                )
