"""How far a partition had read its inputs at any of its positions, from the log's rows alone.

A file's footer says it of the file's end. Within a file the rows do: each command has an outcome,
whose source is its stream id, and what another partition has sent is handled once and in order.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from ingest.envelope import DEFERRED, ENVELOPE, SENDING_COLUMNS, SENT
from pipeline.log.inputs import Inputs
from pipeline.log.log import Log
from projections.relations import rows_between, with_parts
from projections.session import session

HANDLED = """
    SELECT partition, position, split_part(stream_id, '/', 1)::INTEGER AS sender,
        split_part(stream_id, '/', 2)::BIGINT AS sent_at
    FROM log WHERE contains(stream_id, '/')
"""
"""Of the SQL relation `log` the rows of what partitions have sent, and where that stands."""

_STREAM_ID = "SELECT max_by(stream_id, position) FROM log WHERE NOT contains(stream_id, '/')"

_CURSORS = f"""
    SELECT sender, max(sent_at) + 1 FROM handled WHERE (sender, sent_at) NOT IN
        (SELECT (partition, position) FROM log WHERE event_type = '{DEFERRED}')
    GROUP BY sender
"""

_SENT = f"""
    SELECT to_partition, max(position) FROM log WHERE event_type = '{SENT}' GROUP BY to_partition
"""


def inputs_at(log: Log, number: int, end: int) -> Inputs:
    """As of a partition's rows below `end`, which is where the rows of a command begin."""
    ((stream_id,),) = _asked(log, number, end, _STREAM_ID)
    cursors, sent = (dict(_asked(log, number, end, query)) for query in (_CURSORS, _SENT))
    return Inputs(stream_id or Inputs().stream_id, cursors, sent)


def first_beyond(log: Log, number: int, end: int, ends: Mapping[int, int]) -> int | None:
    """Of a partition's rows below `end` the first that handles what no log has, of these ends."""
    values = ", ".join(map(str, ends.items()))
    query = (
        f"SELECT min(position) FROM handled JOIN (VALUES {values}) ends(sender, ends_at)"
        " USING (sender) WHERE sent_at >= ends_at"
    )
    ((position,),) = _asked(log, number, end, query)
    return None if position is None else int(position)


def _asked(log: Log, number: int, end: int, query: str) -> list[tuple[Any, ...]]:
    schema = pa.schema([*ENVELOPE, *SENDING_COLUMNS])
    parts = {"log": rows_between(log, schema, {}, {number: end}), "handled": HANDLED}
    with session() as db:
        db.execute("SET enable_progress_bar = false")
        return db.execute(with_parts(parts, query)).fetchall()
