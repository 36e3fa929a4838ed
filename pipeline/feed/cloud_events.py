"""Events as CloudEvents 1.0, in their JSON format.

source            /shop/3fa92c61b0d4…    the domain and the log's identity
id                3:118                  partition and position: with the source, of no other
type, subject     the event's type, the aggregate's id
time              when it occurred
data              what `foldlog schema events` describes
"""

from __future__ import annotations

import json

import pyarrow as pa

from ingest.domain import Domain
from pipeline.feed.lines import Lines
from pipeline.log.log import Log


class CloudEvents:
    """From rows of the log, as of today's code, to a JSON object each. Not for several threads."""

    def __init__(self, domain: Domain, log: Log) -> None:
        self._lines = Lines(domain)
        self._source = json.dumps(f"/{domain.name}/{log.identity}")

    def of(self, rows: pa.Table) -> list[tuple[int, bytes]]:
        """Each row's position and event, in order."""
        names = ["partition", "position", "event_type", "aggregate_id", "occurred_at"]
        columns = [*(rows[name].to_pylist() for name in names), self._lines.of(rows)]
        return [
            (
                position,
                f'{{"specversion":"1.0","id":"{partition}:{position}","source":{self._source},'
                f'"type":{json.dumps(event_type)},"subject":{json.dumps(aggregate_id)},'
                f'"time":"{occurred_at.isoformat()}Z","datacontenttype":"application/json",'
                f'"data":{line}}}'.encode(),
            )
            for partition, position, event_type, aggregate_id, occurred_at, line in zip(
                *columns, strict=True
            )
        ]
