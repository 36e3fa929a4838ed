"""Where a subscription begins: at the first event, at a token, at a time, or now."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TypeAlias

import pyarrow.compute as pc

from ingest.columns.column import TIME
from ingest.errors import NotAvailable
from pipeline.feed.token import Token
from pipeline.log.log import Log
from projections.relations import Positions

NOW = "now"
"""In place of a token: after the last event that the log has."""

Since: TypeAlias = str | datetime | Mapping[int, int] | None
"""A token, a time, ISO text of one, `NOW`, or partition → position. None is the first event."""


def begin(log: Log, since: Since, ends: Positions) -> dict[int, int]:
    """The position that each partition begins at; `ends` are those after the last rows.

    A time is that of recording, and in UTC where it has no offset. Raises `LogMismatch` for a token
    of another log, and `NotAvailable` for text that says nothing and for a time that no row has.
    """
    if since == NOW:
        return {**ends}
    found = _said(since) if isinstance(since, str) else since
    if isinstance(found, datetime):
        moment = in_utc(found)
        return {partition: _recorded_since(log, partition, moment) for partition in ends}
    token = found if isinstance(found, Token) else Token(found or {})
    token.check(log.identity, ends)
    return {partition: token.positions.get(partition, 0) for partition in ends}


def _said(text: str) -> Token | datetime:
    try:
        return Token.parse(text)
    except NotAvailable as no_token:
        try:
            return datetime.fromisoformat(text)
        except ValueError:
            raise NotAvailable(f"{no_token}; or a time, as 2017-06-30T12:00, or {NOW}") from None


def in_utc(moment: datetime) -> datetime:
    """Without an offset, as the log's columns have times. Raises `NotAvailable` beyond them."""
    if moment.tzinfo is None:
        return moment
    try:
        return moment.astimezone(UTC).replace(tzinfo=None)
    except OverflowError:
        raise NotAvailable(f"{moment} is outside the years 1 to 9999 in UTC") from None


def _recorded_since(log: Log, partition: int, moment: datetime) -> int:
    """The position of the first row with that time or a later one; else the one after the last."""
    with log.reading():
        position = log.position_before(partition, moment)
        for rows in log.read(partition, position, ["recorded_at"]):
            later = pc.index(pc.greater_equal(rows["recorded_at"].cast(TIME), moment), True).as_py()
            if later >= 0:
                return position + int(later)
            position += len(rows)
    return position
