"""Alarms that ring and go off by themselves: an aggregate with two deadlines, one of which sets the
other anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated, NamedTuple

from pydantic import Field

from ingest import Aggregate, Command, Domain, Identifier, Later, Of, event


@event
class Armed:
    in_s: int


@event
class Dozed: ...


@event
class Rang: ...


@event
class TurnedOff: ...


Event = Armed | Dozed | Rang | TurnedOff


class Alarm(NamedTuple):
    armed: bool = False
    rang: int = 0


def evolve(state: Alarm, event: Event) -> Alarm:
    match event:
        case Armed():
            return state._replace(armed=True)
        case Rang():
            return state._replace(rang=state.rang + 1)
        case Dozed():
            return state
        case TurnedOff():
            return state._replace(armed=False)


class Arm(Command):
    """It dozes after the time, and rings after it, too."""

    alarm_id: Identifier
    in_s: Annotated[int, Field(ge=0)]


class Doze(Command):
    alarm_id: Identifier


class Ring(Command):
    alarm_id: Identifier


class TurnOff(Command):
    alarm_id: Identifier


def decide(state: Alarm, command: Arm | Doze | Ring | TurnOff) -> list[Event]:
    match command:
        case Arm(in_s=in_s):
            return [Armed(in_s)]
        case TurnOff():
            return [TurnedOff()] if state.armed else []
        case Doze():
            return [Dozed()] if state.armed else []
        case Ring():
            return [Rang()] if state.armed else []


def arm(event: Armed, of: Of[Alarm]) -> Iterator[Later[Doze | Ring]]:
    in_time = timedelta(seconds=event.in_s)
    yield Later(in_time, Doze(alarm_id=of.id))
    yield Later(in_time, Ring(alarm_id=of.id))


def doze(event: Dozed, of: Of[Alarm]) -> Iterator[Later[Ring]]:
    """It is to ring an hour later than it was."""
    yield Later(timedelta(hours=1), Ring(alarm_id=of.id))


alarm = Aggregate(
    name="alarm",
    key="alarm_id",
    initial=Alarm(),
    decide=decide,
    evolve=evolve,
    table="alarms",
)
alarms = Domain("alarms", (alarm,), (arm, doze))
