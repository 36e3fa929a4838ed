"""A domain with a mistake: its rules fail on some commands, and say what they were given."""

from __future__ import annotations

from typing import Any

from ingest import Aggregate, Command, Domain, Identifier, event


@event
class Kept:
    text: str


class Fail(Command):
    id: Identifier
    text: str


def decide(state: str, command: Fail) -> list[Kept]:
    if command.text != "well":
        raise ValueError(f"cannot handle {command.text}")
    return [Kept(command.text)]


def evolve(state: str, event: Kept) -> str:
    return event.text


def refuse(state: str, event: Kept) -> str:
    if event.text != "well":
        raise ValueError(f"cannot evolve by {event.text}")
    return event.text


def accept(state: str, command: Fail) -> list[Kept]:
    return [Kept(command.text)]


def row(state: str) -> Kept:
    return Kept(state)


def _domain(decide: Any, evolve: Any) -> Domain:
    kept = Aggregate(
        name="kept", key="id", initial="", decide=decide, evolve=evolve, table="rows_of_it", row=row
    )
    return Domain("failing", (kept,))


failing = _domain(decide, evolve)
mended = _domain(accept, evolve)
forgetful = _domain(decide, refuse)
"""Cannot evolve by what `mended` has decided."""
