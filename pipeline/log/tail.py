"""Where a file of the log ends, what was read up to there, and who wrote it: its footer says it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.log.encoding import inputs_in, runs_in
from pipeline.log.inputs import Inputs
from pipeline.log.names import LogFile
from pipeline.log.pieces import unreadable


@dataclass(frozen=True, slots=True)
class Tail:
    """Where a partition ends, or a file of it: the next position, and what was read up to there."""

    next_position: int = 0
    inputs: Inputs = field(default_factory=Inputs)


def end_of(file: LogFile) -> Tail:
    """Raises `LogDamaged` where it cannot be read."""
    try:
        about = pq.read_metadata(file.path)
        return Tail(file.first + about.num_rows, inputs_in(about))
    except (OSError, pa.ArrowException, ValueError, TypeError, KeyError) as error:
        raise unreadable(file, error) from None


def runs_of(files: Sequence[LogFile]) -> dict[int, str]:
    """Position → the run that wrote the rows from there on, of adjacent files.

    "" where nothing says it. Raises `LogDamaged` where a file cannot be read.
    """
    found: dict[int, str] = {}
    last = None
    for file in files:
        try:
            runs = runs_in(pq.read_metadata(file.path), file.first)
        except (OSError, pa.ArrowException, ValueError) as error:
            raise unreadable(file, error) from None
        for first, run in runs.items():
            if run != last:
                found[first] = last = run
    return found
