"""Which programs run, and what each holds."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ingest.errors import FoldlogError
from pipeline.lock import is_held
from pipeline.paths import Paths


@dataclass(frozen=True, slots=True)
class Program:
    """A program that runs, as `foldlog status` shows it."""

    name: str
    """`work`, `work 1/2` of a share, `read`, `up`."""
    host: str
    process: int
    since: float
    """Unix time."""

    def holds(self, partitions: int) -> str:
        """What nobody else may hold, in words, for a log of so many partitions."""
        if not self.name.startswith("work"):
            return "the read models"
        mine = share_of(self.name.removeprefix("work").strip() or ALL, partitions)
        return f"partitions {', '.join(map(str, mine))}"


ALL = "0/1"
"""The share that is all partitions."""


def named(share: str) -> str:
    """The name of the program that works on a share."""
    return "work" if share == ALL else f"work {share}"


def share_of(text: str, partitions: int) -> list[int]:
    """The partitions of a share: `2/3` are those with p % 3 == 2. Raises `FoldlogError`."""
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise FoldlogError(f"{text!r} is no share; write 0/2 for the first of two")
    return [*range(int(index), partitions, int(count))]


def running(paths: Paths) -> list[Program]:
    """The programs that run on this data directory, by name."""
    found = []
    for path in paths.programs.glob("*@*") if paths.programs.exists() else ():
        with suppress(OSError, ValueError):  # it has just ended, or just begun
            if is_held(path):
                about: dict[str, Any] = json.loads(path.read_text())
                found.append(Program(**about))
            else:
                _forget(path)
    return sorted(found, key=lambda program: program.name)


def _forget(path: Path) -> None:
    """Remove the file of a program that was killed."""
    with suppress(OSError):  # only who may write here can
        path.unlink()
