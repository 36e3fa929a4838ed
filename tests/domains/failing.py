"""A domain with a mistake: its rules fail on some commands, and say what they were given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from ingest import Command, Decider, Domain, Identifier


@dataclass(frozen=True, slots=True)
class Kept:
    text: str


class Fail(Command):
    type: Literal["Fail"] = "Fail"
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


def _domain(decide: Any, evolve: Any) -> Domain:
    return Domain(
        name="failing",
        id_field="id",
        commands=(Fail,),
        events={"Kept": Kept},
        decider=Decider(initial="", decide=decide, evolve=evolve),
        folded="rows_of_it",
        row=lambda state: Kept(state),
        row_type=Kept,
    )


failing = _domain(decide, evolve)
mended = _domain(lambda state, command: [Kept(command.text)], evolve)
forgetful = _domain(decide, refuse)
"""Cannot evolve by what `mended` has decided."""
