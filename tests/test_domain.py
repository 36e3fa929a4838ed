"""A domain that cannot work is refused when it is made, by the name of what is wrong."""

from __future__ import annotations

import re
import typing
from collections.abc import Iterator, Mapping
from dataclasses import make_dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple, NewType

import pytest
from pydantic import Field

from ingest import Aggregate, Command, Identifier, Later, Of, event
from ingest.domain import Domain, Upcast
from ingest.errors import DomainInvalid
from projections.upcast import check_upcasts
from tests.declaring import giving, redeclared, taking
from tests.domains import shop


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"last_at": str}, r"read model tills: Row\.last_at: the read model has a column last_at"),
        ({"first_at": str}, r"Row\.first_at"),
        ({"version": int}, r"Row\.version"),
        ({"till": str}, r"Row\.till"),
        ({"aggregate_id": str}, r"Row\.aggregate_id"),
        ({"Last_At": str}, r"Row\.Last_At: the read model has a column last_at"),
        ({"sum": int, "Sum": int}, r"Row\.Sum: the read model has a column sum"),
        ({"lines": object}, r"Row\.lines: object cannot be a column"),
    ],
)
def test_a_row_field_that_cannot_be_a_column_is_named(fields: dict[str, Any], told: str) -> None:
    row = make_dataclass("Row", [*fields.items()])
    with pytest.raises(DomainInvalid, match=told):
        replace(shop.till_then, row=giving(lambda till: till, row))
    with pytest.raises(DomainInvalid, match=told):
        replace(shop.till_then, initial=row(*fields))


def with_events(*events: type) -> Domain:
    return redeclared(shop.then, evolve=taking(lambda till, event: till, *events))


def test_event_fields_that_sql_cannot_tell_apart_are_refused() -> None:
    sold = make_dataclass("Sold", [("name", str)])
    with pytest.raises(DomainInvalid, match=r"Lost\.Name is name elsewhere"):
        with_events(sold, make_dataclass("Lost", [("Name", str)]))
    for name in ("Reason", "POSITION", "aggregate"):
        with pytest.raises(DomainInvalid, match=f"Kept.{name}: the log has a column of that name"):
            with_events(sold, make_dataclass("Kept", [(name, str)]))


def with_upcast(
    columns: Mapping[str, str], retired: Mapping[str, Any] | None = None, of: str = "Sold"
) -> Domain:
    second = shop.now.upcasts[1]
    first = Upcast(event_type=of, from_version=1, columns=columns, retired=retired or {})
    return replace(shop.now, upcasts=(first, second))


def test_an_upcast_names_its_event_its_version_and_what_is_wrong() -> None:
    right = {"cents": "price * 100"}
    with pytest.raises(DomainInvalid, match="needs an Upcast from each version before"):
        with_upcast(right, {"price": float}, of="Solt")
    extra = Upcast(event_type="Solt", from_version=1, columns={})
    with pytest.raises(DomainInvalid, match=r"Solt from version 1: there is no such event; .*Sold"):
        replace(shop.now, upcasts=(*shop.now.upcasts, extra))
    with pytest.raises(DomainInvalid, match=r"has them from \[1, 1, 2\]"):
        replace(shop.now, upcasts=(*shop.now.upcasts, shop.now.upcasts[0]))
    with pytest.raises(DomainInvalid, match="Sold from version 1: there is no column cent;"):
        with_upcast({"cent": "price * 100"}, {"price": float})
    with pytest.raises(DomainInvalid, match="version 1 retires price: <class 'object'> is no type"):
        with_upcast(right, {"price": object})
    with pytest.raises(DomainInvalid, match="retires cents as string, and elsewhere it is int64"):
        with_upcast(right, {"cents": str})
    check_upcasts(with_upcast(right, {"price": float}))
    check_upcasts(with_upcast(right, {"price": float, "name": str}))
    for sql in ("prise * 100", "price *", "sum(price)", "price; DROP TABLE rows"):
        with pytest.raises(DomainInvalid, match="the Upcast of Sold from version 1 says cents ="):
            check_upcasts(with_upcast({"cents": sql}, {"price": float}))


# --- two aggregates, and a mistake in them


class Level(NamedTuple):
    litres: int = 0


class Fill(Command):
    tank: Identifier


class Drain(Command):
    tank: Identifier


class Paint(Command):
    """It has no field `tank`."""

    colour: str


class FillAgain(Command):
    type: Literal["Fill"] = "Fill"
    tank: Identifier


class Vague(Command):
    type: str = "Vague"
    tank: Identifier


@event
class Filled: ...


@event
class Drained: ...


@event(name="Filled")
class FilledAgain: ...


@event(name="CommandRejected")
class Refused: ...


class Leaked:
    """No dataclass."""


class Count(Command):
    tank: int


class Perhaps(Command):
    tank: Identifier | None = None


class Called(Command):
    tank: Identifier = Field(alias="tankId")


class Choose(Command):
    tank: Literal["north", 1]


async def later(level: Level, command: Fill) -> list[Filled]:
    return []


def at_a_time(level: Level, command: Fill, now: datetime) -> list[Filled]:
    return []


def fill(level: Level, command: Fill) -> list[Filled]:
    return [Filled()]


def filled(level: Level, event: Filled) -> Level:
    return level


def drain(level: Level, command: Drain) -> list[Drained]:
    return [Drained()]


def drained(level: Level, event: Drained) -> Level:
    return level


def alone(level: Level) -> list[Filled]:
    return []


def shown_either_way(level: Level) -> Level | Filled:
    return level


def deciding(*commands: Any) -> Any:
    return taking(lambda level, command: [], *commands)


def evolving(*events: Any) -> Any:
    return taking(lambda level, event: level, *events)


TANK: dict[str, Any] = {
    "name": "tank", "key": "tank", "initial": Level(), "decide": fill, "evolve": filled,
    "table": "tanks",
}  # fmt: skip
DRAIN = {**TANK, "name": "drain", "decide": drain, "evolve": drained, "table": "drains"}


@pytest.mark.parametrize(
    ("mistake", "told"),
    [
        ({"decide": lambda level, command: []}, "tank: <lambda>(command) needs an annotation: a"),
        (
            {"decide": deciding("Missing")},
            "aggregate tank: <lambda>: name 'Missing' is not defined",
        ),
        ({"decide": deciding("shop.Missing")}, "<lambda>: module 'tests.domains.shop' has no attr"),
        ({"decide": deciding("Fill or")}, "aggregate tank: <lambda>: Forward reference must be an"),
        ({"decide": deciding("'Fill' | Drain")}, "aggregate tank: <lambda>: unsupported operand"),
        ({"decide": deciding("list[Fill]")}, "aggregate tank: list[tests.test_domain.Fill] is no"),
        ({"decide": alone}, "aggregate tank: alone has 1 parameters, and needs 2"),
        ({"decide": deciding(Fill, int)}, "tank: int is no Command"),
        ({"decide": deciding(Fill, Paint)}, "Paint has no field tank"),
        ({"decide": deciding(Vague)}, 'like type: Literal["Vague"], or'),
        (
            {"evolve": lambda level, event: level},
            "<lambda>(event) needs an annotation: a class, or",
        ),
        (
            {"evolve": evolving(Filled, Leaked)},
            "event Leaked is no datac",
        ),
        ({"evolve": evolving(Filled, FilledAgain)}, "named Filled"),
        ({"evolve": evolving(Refused)}, "the log itself uses that name"),
        ({"row": shown_either_way}, "aggregate tank: its rows are of one class, not of several"),
        ({"row": lambda level: level}, "tank: what <lambda> returns needs an annotation: a class"),
        ({"row": giving(lambda level: level, dict)}, "read model tanks: dict must be a dataclass"),
        ({"initial": None}, "read model tanks: NoneType must be a dataclass or a named tuple"),
        ({"key": "id"}, "Fill has no field id"),
        (
            {"decide": deciding(Count)},
            "Count.tank names the aggregate: it is text, not <class 'int'",
        ),
        ({"decide": deciding(Perhaps)}, "Perhaps.tank names the aggregate: it is text, not "),
        ({"decide": deciding(Choose)}, "Choose.tank names the aggregate: it is text, not "),
        (
            {"decide": deciding(Called)},
            "Called.tank names the aggregate: it has no other name, as ",
        ),
        ({"decide": later}, "aggregate tank: later is async; rules wait for nothing"),
        ({"decide": at_a_time}, "aggregate tank: at_a_time has 3 parameters, and needs 2"),
        ({"decide": None}, "aggregate tank: NoneType is no function"),
    ],
)
def test_a_mistake_in_an_aggregate_is_one_line_that_names_it(
    mistake: dict[str, Any], told: str
) -> None:
    with pytest.raises(DomainInvalid) as refused:
        Aggregate(**{**TANK, **mistake})
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("second", "told"),
    [
        ({"name": "tank"}, "two aggregates have the name tank; each has its own"),
        ({"name": "Tank"}, "two aggregates have the name tank; each has its own"),
        ({"table": "tanks"}, "two aggregates have the table tanks; each has its own"),
        ({"table": "Tanks"}, "two aggregates have the table tanks; each has its own"),
        ({"decide": fill}, "two aggregates decide Fill; each has its own"),
        ({"decide": deciding(FillAgain)}, "two commands are named Fill;"),
        ({"evolve": filled}, "two aggregates have the event Filled; each has its own"),
        ({"evolve": evolving(FilledAgain)}, "have the event Filled;"),
    ],
)
def test_what_two_aggregates_have_in_common_is_one_line_that_names_it(
    second: dict[str, Any], told: str
) -> None:
    with pytest.raises(DomainInvalid) as refused:
        Domain("tanks", (Aggregate(**TANK), Aggregate(**{**DRAIN, **second})))
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


def test_two_aggregates_that_have_nothing_in_common_are_a_domain_and_none_or_no_tuple_are_not() -> (
    None
):
    tank, drain = Aggregate(**TANK), Aggregate(**DRAIN)
    domain = Domain("tanks", (tank, drain))
    assert domain.commands == (Fill, Drain)
    assert domain.events == {"Filled": Filled, "Drained": Drained}
    with pytest.raises(DomainInvalid, match="domain tanks has no aggregates"):
        Domain("tanks", ())
    with pytest.raises(DomainInvalid, match=r"domain tanks needs a tuple of aggregates"):
        Domain("tanks", tank)


@pytest.mark.parametrize("name", ["", "a b", "tanks}", "{tanks}", "tanks:old", "tänks"])
def test_a_name_that_would_break_a_key_or_a_flag_is_refused(name: str) -> None:
    with pytest.raises(DomainInvalid, match=re.escape(f"the name {name!r} has others than")):
        Domain(name, (Aggregate(**TANK),))
    with pytest.raises(DomainInvalid, match=re.escape(f"the name {name!r} has others than")):
        Domain("tanks", (Aggregate(**{**TANK, "name": name}),))


TankId = NewType("TankId", Identifier)


class FillEither(Command):
    tank: Literal["north", "south"]


class FillNew(Command):
    tank: TankId


def test_a_key_may_be_any_kind_of_text() -> None:
    aggregate = Aggregate(**{**TANK, "decide": deciding(Fill, FillEither, FillNew)})
    assert aggregate.commands == (Fill, FillEither, FillNew)


# --- a mistake in a policy


def drain_too(event: Filled, of: Of[Level]) -> Iterator[Drain]:
    yield Drain(tank=of.id)


def fill_again(event: Filled, of: Of[Level]) -> Iterator[Later[Fill]]:
    yield Later(timedelta(1), Fill(tank=of.id))


def without_of(event: Filled, of: Level) -> Iterator[Drain]:
    yield Drain(tank="")


def of_another(event: Filled, of: Of[Sediment]) -> Iterator[Drain]:
    yield Drain(tank=of.id)


def later_elsewhere(event: Filled, of: Of[Level]) -> Iterator[Later[Drain]]:
    yield Later(timedelta(1), Drain(tank=of.id))


def alone_with_it(event: Filled) -> Iterator[Drain]:
    yield Drain(tank="")


def unasked(event, of: Of[Level]) -> Iterator[Drain]:  # type: ignore[no-untyped-def]
    yield Drain(tank=of.id)


def says_not_what(event: Filled, of: Of[Level]) -> typing.Iterator:  # type: ignore[type-arg]
    yield Drain(tank=of.id)


def sends_one(event: Filled, of: Of[Level]) -> Drain:
    return Drain(tank=of.id)


def sends_an_event(event: Filled, of: Of[Level]) -> Iterator[Drained]:
    yield Drained()


def sends_a_stray(event: Filled, of: Of[Level]) -> Iterator[Paint]:
    yield Paint(colour="red")


def on_a_stray(event: FilledAgain, of: Of[Level]) -> Iterator[Drain]:
    yield Drain(tank=of.id)


async def waits(event: Filled, of: Of[Level]) -> Iterator[Drain]:
    return iter(())


class Sediment(NamedTuple):
    grams: int = 0


def settled(sediment: Sediment, event: Drained) -> Sediment:
    return sediment


def sift(sediment: Sediment, command: Drain) -> list[Drained]:
    return [Drained()]


@pytest.mark.parametrize(
    ("policies", "told"),
    [
        (drain_too, "domain tanks needs a tuple of policies; of one alone it is (place,)"),
        ((drain_too, fill_again, drain_too), "policy drain_too stands there twice, and would send"),
        (
            (without_of,),
            "policy without_of: its second parameter is what the event happened to, as",
        ),
        ((of_another,), "policy of_another: Of[Sediment] is not what its events happen to"),
        (
            (later_elsewhere,),
            "later_elsewhere keeps Drain for later, which is not for the aggregate",
        ),
        ((alone_with_it,), "policy alone_with_it: alone_with_it has 1 parameters, and needs 2"),
        ((unasked,), "policy unasked: unasked(event) needs an annotation: a class"),
        (
            (says_not_what,),
            "policy says_not_what returns an Iterator of the commands that it sends",
        ),
        ((sends_one,), "policy sends_one returns an Iterator of the commands that it sends, not "),
        ((sends_an_event,), "policy sends_an_event sends Drained, which is no Command"),
        ((sends_a_stray,), "policy sends_a_stray sends Paint, which no aggregate here decides"),
        ((on_a_stray,), "policy on_a_stray reacts to FilledAgain, which is no event here"),
        ((waits,), "policy waits: waits is async; rules wait for nothing"),
        ((Aggregate(**TANK),), "is no function"),
        (("drain_too",), "policy str: str is no function"),
    ],
)
def test_a_mistake_in_a_policy_is_one_line_that_names_it(policies: Any, told: str) -> None:
    drain = Aggregate(**{**DRAIN, "initial": Sediment(), "decide": sift, "evolve": settled})
    Domain("tanks", (Aggregate(**TANK), drain), (drain_too, fill_again))
    with pytest.raises(DomainInvalid) as refused:
        Domain("tanks", (Aggregate(**TANK), drain), policies)
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


def test_only_aggregates_are_aggregates() -> None:
    wrong: Any = (Aggregate(**TANK), drain_too)
    with pytest.raises(DomainInvalid, match="domain tanks: function is no Aggregate"):
        Domain("tanks", wrong)
