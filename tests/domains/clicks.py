"""Sessions of a website, and every type that a field may have: in commands, events, state, rows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from pathlib import Path
from typing import Annotated, Literal, TypeAlias
from uuid import UUID

from pydantic import Field, NaiveDatetime

from ingest import Aggregate, Command, Domain, Identifier, Rejected, event

ASLEEP = timedelta(minutes=30)


class Device(StrEnum):
    PHONE = "phone"
    DESKTOP = "desktop"


class Channel(Enum):
    """Stored by its names, since its values are of two types."""

    SEARCH = "search"
    MAIL = 2


class Interest(IntEnum):
    LOW = 1
    HIGH = 5


Money: TypeAlias = Annotated[Decimal, Field(max_digits=12, decimal_places=2)]
Ending: TypeAlias = Literal["left", "bought"]


@dataclass(frozen=True, slots=True)
class Place:
    country: str
    latitude: float
    seen_at: datetime
    device: Device = Device.DESKTOP


# --- events


@event
class SessionBegun:
    visitor: UUID
    device: Device
    channel: Channel
    begun_at: datetime
    wall_clock: NaiveDatetime | None
    place: Place | None
    tags: tuple[str, ...]
    token: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Clicked:
    page: str
    clicked_at: datetime
    local: time
    dwell: timedelta
    spent: Money
    interest: Interest | None
    scores: tuple[float, ...]
    trail: tuple[Place, ...] = ()


@event
class SessionEnded:
    ending: Ending
    on: date
    happy: bool
    pages: int


Event: TypeAlias = SessionBegun | Clicked | SessionEnded

# --- state


@dataclass(frozen=True, slots=True)
class Session:
    status: Literal["none", "open", "ended"] = "none"
    visitor: UUID | None = None
    device: Device = Device.DESKTOP
    channel: Channel | None = None
    moved_at: datetime | None = None
    wall_clock: NaiveDatetime | None = None
    place: Place | None = None
    tags: tuple[str, ...] = ()
    token: bytes = b""
    local: time | None = None
    dwell: timedelta = timedelta(0)
    spent: Money = Decimal("0.00")
    interest: Interest = Interest.LOW
    best: float = 0.0
    trail: tuple[Place, ...] = ()
    ended_on: date | None = None
    happy: bool = False
    pages: int = 0


def evolve(state: Session, event: Event) -> Session:
    match event:
        case SessionBegun():
            return Session(
                status="open",
                visitor=event.visitor,
                device=event.device,
                channel=event.channel,
                moved_at=event.begun_at,
                wall_clock=event.wall_clock,
                place=event.place,
                tags=event.tags,
                token=event.token,
            )
        case Clicked():
            return replace(
                state,
                moved_at=event.clicked_at,
                local=event.local,
                dwell=state.dwell + event.dwell,
                spent=state.spent + event.spent,
                interest=state.interest if event.interest is None else event.interest,
                best=max(state.best, *event.scores, 0.0),
                trail=event.trail,
                pages=state.pages + 1,
            )
        case SessionEnded():
            return replace(state, status="ended", ended_on=event.on, happy=event.happy)


# --- commands


class Begin(Command):
    session_id: Identifier
    visitor: UUID
    device: Device
    channel: Channel
    begun_at: datetime
    wall_clock: NaiveDatetime | None = None
    place: Place | None = None
    tags: tuple[str, ...] = ()
    token: bytes = b""


class Click(Command):
    session_id: Identifier
    page: str
    clicked_at: datetime
    local: time
    dwell: timedelta
    spent: Money
    interest: Interest | None = None
    scores: tuple[float, ...] = ()
    trail: tuple[Place, ...] = ()


class End(Command):
    session_id: Identifier
    ending: Ending
    on: date
    happy: bool


def decide(state: Session, command: Begin | Click | End) -> list[Event]:
    """The rules look at what a restart could change: an hour, a member, a difference of times."""
    match command:
        case Begin():
            if state.status != "none":
                raise Rejected("the session has begun")
            return [
                SessionBegun(
                    command.visitor, command.device, command.channel, command.begun_at,
                    command.wall_clock, command.place, command.tags, command.token,
                )
            ]  # fmt: skip
        case _ if state.status != "open":
            raise Rejected("the session is not open")
        case Click():
            assert state.moved_at is not None
            if command.clicked_at < state.moved_at:
                raise Rejected("the click comes late")
            if command.clicked_at - state.moved_at > ASLEEP:
                raise Rejected("the session is asleep")
            if state.moved_at.hour == 23 and state.device is Device.PHONE:
                raise Rejected("phones sleep at 23 h UTC")
            if state.channel is Channel.MAIL and state.interest is Interest.HIGH:
                raise Rejected("who comes by mail and is interested has seen enough")
            return [
                Clicked(
                    page=command.page,
                    clicked_at=command.clicked_at,
                    local=command.local,
                    dwell=command.dwell,
                    spent=command.spent,
                    interest=command.interest,
                    scores=command.scores,
                    trail=command.trail,
                )
            ]
        case End():
            return [SessionEnded(command.ending, command.on, command.happy, state.pages)]


session = Aggregate(
    name="session",
    key="session_id",
    initial=Session(),
    decide=decide,
    evolve=evolve,
    table="sessions",
)
clicks = Domain("clicks", (session,), read_models=Path(__file__).parent / "clicks_read_models")
