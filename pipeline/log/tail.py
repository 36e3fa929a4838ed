"""Where a file of the log ends, and what was read up to there: its footer says both."""

from __future__ import annotations

from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.log.encoding import inputs_in
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
