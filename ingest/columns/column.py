"""A column of the log: its type in Arrow, and a value on its way there and back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

TIME = pa.timestamp("us")
"""UTC; without a zone, so that no session's time zone changes a day."""

INT64 = range(-(2**63), 2**63)
"""What an integer in a column may be."""


class Misfit(ValueError):
    """A value that its column could not give back. Says in which field and why, and not which."""

    def __init__(self, why: str, *path: str) -> None:
        super().__init__(f"{'.'.join(path)}: {why}" if path else why)
        self._why = why
        self._path = path

    def within(self, name: str) -> Misfit:
        """The same, said of the field `name` around that field."""
        return Misfit(self._why, name, *self._path)


def not_a(kind: str, value: Any) -> Misfit:
    """The error for a value of another type than the declared one."""
    return Misfit(f"{kind} is declared, and not {type(value).__name__}")


def as_is(value: Any) -> Any:
    """The value itself: for columns that hold values as Python does."""
    return value


@dataclass(frozen=True, slots=True)
class Column:
    """How the values of one annotation stand in the log. None is always NULL."""

    type: pa.DataType
    normal: Callable[[Any], Any]
    """A value as the log gives it back; the same object where it is that. Raises `Misfit`."""
    kind: type | None = None
    """Values of just this type that pass `test` are normal, unless Arrow refuses them."""
    test: str = ""
    """An expression in which {0} stands for the value; empty where all pass."""
    to_log: Callable[[Any], Any] = as_is
    """From a normal value to what `array_of` takes."""
    from_log: Callable[[Any], Any] = as_is
    """From what `values_of` gives to the value. Raises `LookupError` where it is none."""
    optional: bool = False
    """Whether None is normal."""
