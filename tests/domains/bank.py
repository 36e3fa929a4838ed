"""A domain unlike the cart: dates, optional fields, a rule about days, unbounded numbers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated

from pydantic import Field

from ingest import Aggregate, Command, Domain, Identifier, Rejected, event

DAILY_LIMIT_CENTS = 100_000


@event
class Deposited:
    cents: int
    note: str | None


@event
class Transferred:
    cents: int
    to_account: str
    on: date


Event = Deposited | Transferred


@dataclass(frozen=True, slots=True)
class Account:
    balance: int = 0
    transferred_on: date | None = None
    transferred: int = 0


def evolve(state: Account, event: Event) -> Account:
    if isinstance(event, Deposited):
        return Account(state.balance + event.cents, state.transferred_on, state.transferred)
    before = state.transferred if state.transferred_on == event.on else 0
    return Account(state.balance - event.cents, event.on, before + event.cents)


class Deposit(Command):
    account_id: Identifier
    cents: int  # unbounded: the log's column is what bounds it
    note: str | None = None


class Transfer(Command):
    account_id: Identifier
    cents: Annotated[int, Field(gt=0)]
    to_account: Identifier


class Touch(Command):
    """Is accepted, and changes nothing."""

    account_id: Identifier


def decide(state: Account, command: Deposit | Transfer | Touch) -> list[Event]:
    if isinstance(command, Touch):
        return []
    if isinstance(command, Deposit):
        return [Deposited(command.cents, command.note)]
    assert command.occurred_at is not None, "the pipeline fills it in"
    day = command.occurred_at.date()
    already = state.transferred if state.transferred_on == day else 0
    if already + command.cents > DAILY_LIMIT_CENTS:
        raise Rejected("over the daily limit")
    if command.cents > state.balance:
        raise Rejected("the balance is too low")
    return [Transferred(command.cents, command.to_account, day)]


@dataclass(frozen=True, slots=True)
class AccountRow:
    balance: int
    last_transfer: date | None


def row(state: Account) -> AccountRow:
    return AccountRow(state.balance, state.transferred_on)


account = Aggregate(
    name="account",
    key="account_id",
    initial=Account(),
    decide=decide,
    evolve=evolve,
    table="accounts",
    row=row,
)
bank = Domain("bank", (account,), read_models=Path(__file__).parent / "bank_read_models")
