"""What policies have sent and is not handled, or came to nothing; deadlines that wait."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from ingest.domain import Domain
from pipeline.log.log import Log
from projections.relations import sent, with_parts
from projections.session import session
from projections.upcast import current_rows

A_DAY = "INTERVAL 1 DAY"


@dataclass(frozen=True, slots=True)
class SentStatus:
    """As of the log's end."""

    waiting: int = 0
    """Sends that their receivers have not handled."""
    failed: int = 0
    """Sends and deadlines of the last day that were rejected: a mistake in the domain."""
    deadlines: int = 0
    """Those that wait."""
    next_due_at: datetime | None = None
    """In UTC."""


def sent_status(domain: Domain, log: Log) -> SentStatus:
    """Zeros where nothing was ever sent; else it reads some columns of the whole log."""
    relations = sent(domain.schema, "log")
    if not relations:
        return SentStatus()
    until = {p: log.next_position(p) for p in range(log.partitions)}
    with log.reading(), session() as db:
        rows = current_rows(domain, log, {}, until)
        # Parquet's statistics answer this, and at once where nothing was ever sent.
        if not db.execute(f"FROM ({rows}) WHERE to_partition IS NOT NULL LIMIT 1").fetchall():
            return SentStatus()
        parts = {"log": rows, **relations}
        columns = "SELECT state, recorded_at"
        both = f"({columns} FROM sends UNION ALL {columns} FROM deadlines)"
        recent = f"recorded_at > (SELECT max(recorded_at) - {A_DAY} FROM log)"
        query = (
            "SELECT (SELECT count(*) FROM sends WHERE state = 'waiting'),"
            f" (SELECT count(*) FROM {both} WHERE {recent}"
            " AND state IN ('rejected', 'unreadable')),"
            " (SELECT count(*) FROM deadlines WHERE state = 'waiting'),"
            " (SELECT min(due_at) FROM deadlines WHERE state = 'waiting')"
        )
        found = db.execute(with_parts(parts, query)).fetchone()
    return SentStatus(*found) if found else SentStatus()
