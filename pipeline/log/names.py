"""Names are the manifest: which positions a file of the log holds, by its name alone."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class LogFile:
    """One file, the first position in it, and where it is compacted the last one."""

    first: int
    path: Path
    last: int | None = None

    def covers(self, first: int) -> bool:
        """Whether it is a compacted file that holds this position."""
        return self.last is not None and self.first <= first <= self.last


Span: TypeAlias = tuple[int, int | None, str]
"""First position, last one where the name says it, name: cheaper than a `LogFile`."""


def spans(folder: Path) -> list[Span]:
    """What the names in a partition's folder say, of one first position the widest first.

    A commit and a compacted file may begin at the same position and differ: a writer that lost
    its partition was killed before it could take its commit back.
    """
    found: list[Span] = []
    for name in os.listdir(folder):
        if name.endswith(".parquet"):
            first, _, last = name.removesuffix(".parquet").partition("-")
            found.append((int(first), int(last) if last else None, name))
    return sorted(found, key=lambda span: (span[0], 0 if span[1] is None else -span[1]))


def needed(found: Sequence[Span], first: int) -> list[Span]:
    """Of the spans of a partition those that hold the positions from `first` on, none twice."""
    chosen: list[Span] = []
    held = -1
    for span in found:
        begin, end, _ = span
        if begin > held:
            if begin <= first:
                chosen.clear()
            chosen.append(span)
            held = begin if end is None else end
    return chosen


def at(folder: Path, found: Iterable[Span]) -> list[LogFile]:
    """The files of a partition's folder."""
    return [LogFile(first, folder / name, last) for first, last, name in found]
