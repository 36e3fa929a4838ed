"""Transfers between two accounts: two aggregates of one kind, and no transaction over both."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated, NamedTuple

from pydantic import Field

from ingest import Aggregate, Command, Domain, Identifier, Later, Of, Rejected, event

Cents = Annotated[int, Field(gt=0, le=1_000_000)]

DORMANT = timedelta(days=1)
"""An account in which so long nothing came in or went out says so, once."""


@event
class Deposited:
    cents: int


@event
class Withdrawn:
    cents: int
    to_account: str


@event
class Received:
    cents: int
    from_account: str


@event
class Refused:
    cents: int
    from_account: str


@event
class Closed: ...


@event
class FellAsleep:
    balance: int


Event = Deposited | Withdrawn | Received | Refused | Closed | FellAsleep


class Account(NamedTuple):
    balance: int = 0
    closed: bool = False


def evolve(state: Account, event: Event) -> Account:
    match event:
        case Deposited(cents) | Received(cents):
            return state._replace(balance=state.balance + cents)
        case Withdrawn(cents):
            return state._replace(balance=state.balance - cents)
        case Closed():
            return state._replace(closed=True)
        case Refused() | FellAsleep():
            return state


class Deposit(Command):
    account_id: Identifier
    cents: Cents


class Transfer(Command):
    account_id: Identifier
    to_account: Identifier
    cents: Cents


class Receive(Command):
    account_id: Identifier
    from_account: Identifier
    cents: Cents


class TakeBack(Receive):
    """A transfer was refused; also a closed account takes its own money back."""


class Close(Command):
    account_id: Identifier


class Sleep(Command):
    account_id: Identifier


def decide(
    state: Account, command: Deposit | Transfer | Receive | TakeBack | Close | Sleep
) -> list[Event]:
    match command:
        case TakeBack():
            return [Received(command.cents, command.from_account)]
        case Receive():
            happened = Refused if state.closed else Received
            return [happened(command.cents, command.from_account)]
        case Sleep():
            return [FellAsleep(state.balance)]
        case _ if state.closed:
            raise Rejected("the account is closed")
        case Deposit():
            return [Deposited(command.cents)]
        case Close():
            return [Closed()]
        case Transfer():
            if command.cents > state.balance:
                raise Rejected("the balance is too low")
            return [Withdrawn(command.cents, command.to_account)]


def pay(event: Withdrawn, of: Of[Account]) -> Iterator[Receive]:
    yield Receive(account_id=event.to_account, from_account=of.id, cents=event.cents)


def pay_back(event: Refused, of: Of[Account]) -> Iterator[TakeBack]:
    yield TakeBack(account_id=event.from_account, from_account=of.id, cents=event.cents)


def sleep(event: Deposited | Withdrawn | Received, of: Of[Account]) -> Iterator[Later[Sleep]]:
    yield Later(DORMANT, Sleep(account_id=of.id))


account = Aggregate(
    name="account",
    key="account_id",
    initial=Account(),
    decide=decide,
    evolve=evolve,
    table="accounts",
)
transfers = Domain("transfers", (account,), (pay, pay_back, sleep))
