"""How a program ends its dataflow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

X = TypeVar("X")
Y = TypeVar("Y")


@dataclass
class Stop:
    """How a process ends its dataflow: `requested` after the batch in hand, `failed` at once.

    A failure never travels through the engine, which would print it in its own way: the source ends
    the dataflow instead, and the process tells the error when the engine has returned.
    """

    requested: bool = False
    error: BaseException | None = None
    raises: bool = False
    """Let failures travel through the engine all the same: where it was started by hand."""

    def failed(self, error: BaseException) -> None:
        """Note the first error. Raises it where failures travel through the engine."""
        self.error = self.error or error
        if self.raises:
            raise error

    def guarded(self, step: Callable[[X], Y]) -> Callable[[X], Y | None]:
        """The step, for `op.filter_map`: once something has failed, nothing is handled any more."""

        def attempt(item: X) -> Y | None:
            if self.error is not None:
                return None
            try:
                return step(item)
            except BaseException as error:
                self.failed(error)
                return None

        return attempt
