"""Outcomes on their way to those who asked for them."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any

from redis.exceptions import ResponseError

from ingest import crash
from ingest.keys import REPLY_EXPIRES_S
from ingest.line import Line, Words
from ingest.outcome import Outcome

logger = logging.getLogger("foldlog")

TOLD_EVERY_S = 60.0
"""How often at most it is said that replies are lost."""


class Answers:
    """Sends outcomes without waiting for them to arrive, and says how many were lost."""

    def __init__(self, stream: str) -> None:
        """`stream` held the commands; the log line names it."""
        self._stream = stream
        self._under_way = 0
        self._lost = 0
        self._tell_at = 0.0

    def send(self, line: Line, replies: Sequence[tuple[str, Outcome]]) -> None:
        """Add each outcome to its stream of replies. Raises what redis-py does while it is away."""
        self._under_way += len(replies)
        commands: list[Words] = []
        for reply_to, outcome in replies:
            commands.append(("XADD", reply_to, "*", "outcome", outcome.to_json()))
            commands.append(("EXPIRE", reply_to, REPLY_EXPIRES_S))
        crash.point("respond.to_send")
        line.send(commands, self._arrived)
        crash.point("respond.sent")

    def lost(self, why: object, more: int = 0) -> None:
        """All that are under way are lost, and `more` that were never sent."""
        self._count_lost(self._under_way, why, more)

    def _arrived(self, answers: list[Any]) -> None:
        errors = [a for a in answers[::2] if isinstance(a, ResponseError)]
        self._under_way -= len(answers) // 2 - len(errors)
        if errors:
            self._count_lost(len(errors), errors[0])

    def _count_lost(self, sent: int, why: object, more: int = 0) -> None:
        """Say how many were lost, and why; not with each batch."""
        self._under_way -= sent
        self._lost += sent + more
        if self._lost and time.monotonic() >= self._tell_at:
            logger.warning(
                "%s: %d replies were lost (%s); a sender that asks again is told",
                self._stream, self._lost, why,
            )  # fmt: skip
            self._lost = 0
            self._tell_at = time.monotonic() + TOLD_EVERY_S
