"""Is each send of the log handled as it should be: the invariant of `pipeline.react`, looked at."""

from __future__ import annotations

from collections.abc import Iterator

from ingest.domain import Domain
from ingest.envelope import DEFERRED, SENT
from pipeline.log.log import Log
from pipeline.operate.inputs_at import HANDLED
from projections.relations import has_sends, with_parts
from projections.session import session
from projections.upcast import current_rows

SHOWN_MAX = 10

_EACH = f"""
    SELECT partition, sender, sent_at, sender || '/' || sent_at AS stream_id,
        min(position) AS position, max(position) - min(position) + 1 - count(*) AS others_between
    FROM ({HANDLED}) GROUP BY partition, sender, sent_at
"""

_SENT = f"""
    SELECT partition AS sender, position AS sent_at, to_partition AS partition,
        event_type = '{DEFERRED}' AS deferred
    FROM log WHERE event_type IN ('{SENT}', '{DEFERRED}')
"""

_WRONG = """
    SELECT 'partition ' || partition || ' handles ' || stream_id || ', which is nothing sent to it'
    FROM handled ANTI JOIN sent USING (sender, sent_at, partition)
    UNION ALL
    SELECT 'partition ' || partition || ' handles ' || stream_id || ' in two places'
    FROM handled WHERE others_between <> 0
    UNION ALL
    SELECT 'partition ' || partition || ' handles ' || stream_id || ' ahead of what was sent before'
    FROM (
        SELECT *, lag(sent_at) OVER (PARTITION BY partition, sender ORDER BY position) AS before
        FROM handled JOIN sent USING (sender, sent_at, partition) WHERE NOT deferred
    )
    WHERE before > sent_at
    UNION ALL
    SELECT 'partition ' || partition || ' has passed over ' || sender || '/' || sent_at
        || ', which was sent to it'
    FROM sent ANTI JOIN handled USING (sender, sent_at, partition) JOIN cursors USING
        (sender, partition)
    WHERE sent_at < cursor AND NOT deferred
"""


def wrong_sends(domain: Domain, log: Log) -> Iterator[str]:
    """A line for each send that is lost, handled twice, out of order, or was never sent."""
    if not has_sends(domain.schema):
        return
    tails = {p: log.tail(p) for p in range(log.partitions)}
    until = {p: tail.next_position for p, tail in tails.items()}
    cursors = [
        (sender, partition, cursor)
        for partition, tail in tails.items()
        for sender, cursor in tail.inputs.cursors.items()
    ]
    values = ", ".join(map(str, cursors)) or "(-1, -1, 0)"
    parts = {
        "log": current_rows(domain, log, {}, until),
        "handled": _EACH,
        "sent": _SENT,
        "cursors": f"SELECT * FROM (VALUES {values}) t(sender, partition, cursor)",
    }
    with session() as db:
        db.execute("SET enable_progress_bar = false")
        found = db.execute(with_parts(parts, f"FROM ({_WRONG}) LIMIT {SHOWN_MAX}")).fetchall()
    yield from (line for (line,) in found)
