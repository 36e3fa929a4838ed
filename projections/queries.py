"""The typed queries that a domain has, by name: its own, and those that every domain has."""

from __future__ import annotations

import importlib
from datetime import date, datetime
from typing import Any, ClassVar

from pydantic import BaseModel

from ingest.domain import Domain
from projections.query import Query


class RejectionReason(BaseModel):
    """How many commands came to nothing for one reason; times are in UTC."""

    outcome: str
    reason: str
    commands: int
    first_at: datetime
    last_at: datetime


class RejectionReasons(Query[list[RejectionReason]]):
    """Why commands came to nothing, by day of arrival (UTC), the most frequent reason first."""

    sql: ClassVar[str] = """
        SELECT
            CASE event_type WHEN 'CommandRejected' THEN 'rejected' ELSE 'unreadable' END AS outcome,
            reason, count(*) AS commands, min(recorded_at) AS first_at, max(recorded_at) AS last_at
        FROM rejections
        WHERE ($since::DATE IS NULL OR recorded_at >= $since)
            AND ($until::DATE IS NULL OR recorded_at < $until::DATE + INTERVAL 1 DAY)
        GROUP BY event_type, reason ORDER BY commands DESC, reason"""
    since: date | None = None
    until: date | None = None


def queries(domain: Domain) -> dict[str, type[Query[Any]]]:
    """The typed queries by name: those of every domain, and those in the domain's module.

    Raises `ImportError` where there is no such module.
    """
    found: dict[str, type[Query[Any]]] = {"RejectionReasons": RejectionReasons}
    if domain.queries:
        for name, value in vars(importlib.import_module(domain.queries)).items():
            if isinstance(value, type) and issubclass(value, Query) and hasattr(value, "sql"):
                found[name] = value
    return found
