"""A domain with a mistake: its rules fail on every command, and say what they were given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ingest.command import Command, Identifier
from ingest.decider import Decider
from ingest.domain import Domain


@dataclass(frozen=True, slots=True)
class Never:
    text: str


@dataclass(frozen=True, slots=True)
class Row:
    text: str


class Fail(Command):
    type: Literal["Fail"] = "Fail"
    id: Identifier
    text: str


def decide(state: str, command: Fail) -> list[Never]:
    raise ValueError(f"cannot handle {command.text}")


failing = Domain(
    name="failing",
    id_field="id",
    commands=(Fail,),
    events={"Never": Never},
    decider=Decider(initial="", decide=decide, evolve=lambda state, event: event.text),
    folded="rows_of_it",
    row=lambda state: Row(state),
    row_type=Row,
)
