"""What an event is in a domain's code: a frozen dataclass with a name in the log."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar, dataclass_transform, overload

E = TypeVar("E")

_NAME = "__event_name__"


@overload
def event(cls: type[E], /) -> type[E]: ...
@overload
def event(*, name: str) -> Callable[[type[E]], type[E]]: ...


@dataclass_transform(frozen_default=True)
def event(cls: type[E] | None = None, /, *, name: str | None = None) -> object:
    """Make a class an event: a frozen dataclass with slots, whose fields are columns of the log.

    In the log it has the class' name; `@event(name="…")` keeps the old one after a rename.
    """

    def made(declared: type[E]) -> type[E]:
        found = dataclass(frozen=True, slots=True)(declared)
        setattr(found, _NAME, name or declared.__name__)
        return found

    return made if cls is None else made(cls)


def event_name(cls: type) -> str:
    """An event class' name in the log; of a plain dataclass its own."""
    return str(cls.__dict__.get(_NAME, cls.__name__))
