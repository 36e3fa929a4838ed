"""A connection to Redis on which nobody waits for an answer."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import redis
from redis.exceptions import ResponseError

Words: TypeAlias = Sequence[Any]
"""A command to Redis and its arguments."""

ANSWER_S = 5.0
"""A Redis that takes longer to answer is away."""


class Line:
    """A connection on which commands are sent at once, and their answers handed on as they come.

    All methods raise what redis-py does while Redis is away.
    """

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self._expected: deque[tuple[int, float, Callable[[list[Any]], None]]] = deque()

    def send(self, commands: Sequence[Words], then: Callable[[list[Any]], None]) -> None:
        """`then` is called with the answers, by `receive`; an error is an answer."""
        self.connection.send_packed_command(self.connection.pack_commands(commands))
        self._expected.append((len(commands), time.monotonic(), then))

    @property
    def waits(self) -> bool:
        """Whether Redis owes an answer."""
        return bool(self._expected)

    def receive(self, *, wait: bool = False) -> None:
        """Hand on the answers that are there, or all. Raises what those raise that take them."""
        while self._expected:
            length, sent_at, then = self._expected[0]
            if not wait and length and not self.connection.can_read():
                if time.monotonic() > sent_at + ANSWER_S:
                    raise redis.TimeoutError(f"no answer for {ANSWER_S:g} s")
                return
            answers = [self._answer() for _ in range(length)]
            self._expected.popleft()
            then(answers)

    def _answer(self) -> Any:
        try:
            return self.connection.read_response(disable_decoding=True)
        except ResponseError as error:
            return error

    def ask(self, *commands: Words, but: str | None = None) -> list[Any]:
        """The answers, None for an error that says `but`. Raises the first other error."""
        answers: list[Any] = []
        self.send(commands, answers.extend)
        self.receive(wait=True)
        return checked(answers, but)


def checked(answers: Sequence[Any], but: str | None = None) -> list[Any]:
    """The answers, None for an error that says `but`. Raises the first other error."""
    for answer in answers:
        if isinstance(answer, ResponseError) and (but is None or but not in str(answer)):
            raise answer
    return [None if isinstance(answer, ResponseError) else answer for answer in answers]
