"""Names are the manifest: which positions a file of the log holds, by its name alone."""

from __future__ import annotations

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
        return self.last is not None and self.first <= first <= self.last


_Span: TypeAlias = tuple[int, int | None, str]
"""First position, last one where the name says it, name: cheaper than a `LogFile`."""
