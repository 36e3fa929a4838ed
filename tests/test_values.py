"""Every type that a field may have: the same before and after a restart, or an outcome."""

from __future__ import annotations

import pickle
import random
import tempfile
from dataclasses import dataclass, field, make_dataclass, replace
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, Flag, IntEnum, StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, NewType
from uuid import UUID

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, NaiveDatetime

from ingest.aggregate import Aggregate
from ingest.columns.declared import record_of
from ingest.command import Command, Identifier
from ingest.domain import Domain
from ingest.entries import Batch
from ingest.envelope import REJECTED, UNREADABLE
from ingest.errors import DomainFailed, DomainInvalid, LogMismatch, Rejected
from pipeline.decide.batch import BatchDecider
from pipeline.decide.folded_rows import FoldedRows
from pipeline.decide.outcomes import A_DAY
from pipeline.decide.partition import Partition
from pipeline.log.log import Log
from pipeline.replay.restore import restore
from pipeline.replay.states import Refold
from projections.export import export
from tests.declaring import giving, redeclared, taking
from tests.domains.bank import AccountRow, bank, row
from tests.more import examples
from tests.running import InProcess, chunked, entry, read

BERLIN = timezone(timedelta(hours=2))
WEST = timezone(timedelta(hours=-10))


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 1
    HIGH = 7


class Mixed(Enum):
    TEXT = "text"
    NUMBER = 2.5


class Old(str, Enum):  # noqa: UP042
    """As enums of text were written before StrEnum; str() of a member is another text."""

    ONE = "one"


class Rights(Flag):
    READ = 1


class Text(str):
    pass


@dataclass(frozen=True)
class Spot:
    at: datetime
    share: float
    colour: Colour | None = None


@dataclass(frozen=True)
class Loop:
    inner: tuple[Loop, ...]


Price = Annotated[Decimal, Field(max_digits=9, decimal_places=2)]
UserId = NewType("UserId", str)
AnyFloat = Annotated[float, Field(allow_inf_nan=True)]

COUNT = 8

# --- what decide may hand over, also where it is not yet what the log gives back

TEXTS = st.text(st.characters(codec="utf-8"), max_size=5)
INTS = st.integers(-(2**63), 2**63 - 1)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
ZONES = st.sampled_from([UTC, BERLIN, WEST, timezone(timedelta(0), "GMT")])
TIMES = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=ZONES)
SPOTS = st.builds(
    Spot, TIMES, FLOATS | st.integers(-99, 99), st.none() | st.sampled_from([*Colour, "red"])
)

TYPES: dict[str, tuple[Any, st.SearchStrategy[Any]]] = {
    "text": (str, TEXTS | st.sampled_from([Colour.RED, Old.ONE, Text("of a subclass"), "a\0b"])),
    "user": (UserId, TEXTS),
    "number": (int, INTS | st.booleans() | st.sampled_from([Level.HIGH, np.int64(3)])),
    "real": (float, FLOATS | st.integers(-(2**53), 2**53) | st.just(np.float64(0.1))),
    "any_real": (AnyFloat, st.sampled_from([float("inf"), -0.0, 1])),
    "yes": (bool, st.booleans()),
    "raw": (bytes, st.binary(max_size=5) | st.just(bytearray(b"a\xff"))),
    "price": (Price, st.decimals(-9_999_999, 9_999_999, places=2) | st.integers(-9, 9)
              | st.sampled_from([Decimal("-0"), Decimal("1.5"), Decimal("3E+2")])),
    "at": (datetime, TIMES | TIMES.map(lambda t: t.replace(fold=1))),
    "wall": (NaiveDatetime, st.datetimes() | st.just(datetime(2020, 1, 1, fold=1))),
    "day": (date, st.dates()),
    "clock": (time, st.times() | st.just(time(1, 2, fold=1))),
    "pause": (timedelta, st.timedeltas(timedelta(days=-99_999_999), timedelta(days=99_999_999))),
    "key": (UUID, st.uuids()),
    "colour": (Colour, st.sampled_from([*Colour, "red"])),
    "level": (Level, st.sampled_from([*Level, 7])),
    "mixed": (Mixed, st.sampled_from([*Mixed, 2.5])),
    "old": (Old, st.sampled_from([*Old, "one"])),
    "word": (Literal["a", "b"], st.sampled_from(["a", "b"])),
    "either": (Literal[Colour.RED], st.sampled_from([Colour.RED, "red"])),
    "tags": (tuple[str, ...], st.lists(TEXTS, max_size=3) | st.lists(TEXTS, max_size=3).map(tuple)),
    "times": (tuple[datetime | None, ...], st.lists(TIMES | st.none(), max_size=3)),
    "prices": (list[Price], st.lists(st.decimals(-9, 9, places=1), max_size=3)),
    "levels": (tuple[tuple[Level, ...], ...], st.lists(st.lists(st.sampled_from([1, 7])))),
    "spot": (Spot, SPOTS),
    "spots": (tuple[Spot, ...], st.lists(SPOTS, max_size=2).map(tuple)),
}  # fmt: skip
EVERYTHING = TYPES | {
    f"no_{name}": (kind | None, values | st.none()) for name, (kind, values) in TYPES.items()
}


class Do(Command):
    id: Identifier
    number: int


@dataclass(frozen=True)
class Seen:
    last: Any = None
    done: int = 0


def domain_of(
    annotations: dict[str, Any], events: list[dict[str, Any]], *, rule: bool = True
) -> Domain:
    """A domain with one event type, whose command `number` causes the event of that number.

    Its rule depends on everything that a value can show.
    """
    happened = make_dataclass("Happened", annotations.items(), frozen=True)
    happened.__module__ = __name__
    globals()["Happened"] = happened  # where pickle looks for it
    row_type = make_dataclass("Row", annotations.items(), frozen=True)

    def decide(state: Seen, command: Do) -> list[Any]:
        if rule and random.Random(repr(state.last)).random() < 0.2:
            raise Rejected(f"not after {state.last}")
        return [happened(**events[command.number])]

    kind = Aggregate(
        name="kind",
        key="id",
        initial=Seen(),
        decide=decide,
        evolve=taking(lambda state, event: Seen(event, state.done + 1), happened),
        table="rows_of_it",
        row=giving(lambda state: row_type(**vars(state.last)), row_type),
    )
    return Domain("every", (kind,))


def ran(domain: Domain, sizes: list[int], restarts: list[bool]) -> Any:
    """The log, the states, and the read model's rows, after batches with restarts between some."""
    commands = [
        {"type": "Do", "command_id": f"{i}", "id": "ab"[i % 2], "number": i} for i in range(COUNT)
    ]
    entries = [entry(i, command) for i, command in enumerate(commands)]
    fold = BatchDecider(domain, partitions=1, payload_bytes_max=65_536)
    shown: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        log = Log.create(Path(folder), partitions=1, domain=domain.name)
        partition = restore(domain, log, 0, A_DAY)
        for number, batch in enumerate(chunked(entries, sizes)):
            decided = fold.decide(partition, Batch(0, batch))
            log.append(0, decided.first, decided.rows)
            partition.apply(decided)
            made = FoldedRows(domain).tables(decided.changed)["kind"].to_pylist()
            shown |= {row["aggregate_id"]: row for row in made}
            if restarts and restarts[number % len(restarts)]:
                partition = restore(domain, log, 0, A_DAY)
        refolded = Refold(domain, log)({}, {0: partition.next_position})["kind"].to_pylist()
        assert repr({row["aggregate_id"]: row for row in refolded}) == repr(shown)
        states = {i: partition.aggregates.get(("kind", i)) for i in "ab"}
        return pa.concat_tables(log.read(0)), states, shown


@examples(8)
@given(data=st.data())
def test_state_and_log_are_the_same_wherever_it_restarts(data: st.DataObject) -> None:
    names = data.draw(
        st.lists(st.sampled_from(sorted(EVERYTHING)), min_size=1, max_size=8, unique=True)
    )
    drawn = st.fixed_dictionaries({name: EVERYTHING[name][1] for name in names})
    events = data.draw(st.lists(drawn, min_size=COUNT, max_size=COUNT))
    domain = domain_of({name: EVERYTHING[name][0] for name in names}, events)
    sizes = data.draw(st.lists(st.integers(1, 4), max_size=4))
    restarts = data.draw(st.lists(st.booleans(), min_size=1, max_size=4))
    rows, states, shown = ran(domain, [], [])
    for again in (ran(domain, sizes, restarts), ran(domain, [1] * COUNT, [True])):
        assert again[0].equals(rows)
        assert repr(again[1:]) == repr((states, shown))
    assert not any("does not fit" in (reason or "") for reason in rows["reason"].to_pylist())
    assert repr(pickle.loads(pickle.dumps(states))) == repr(states), "a snapshot gives them back"
    for state, _ in states.values():
        for name in names:
            assert_is(getattr(state.last, name), EVERYTHING[name][0])


EXACT: dict[Any, type] = {
    UserId: str, AnyFloat: float, Price: Decimal,
    **{t: t for t in (str, int, float, bytes, bool, date, time, timedelta, UUID, datetime)},
    **{t: t for t in (Colour, Level, Mixed, Old, Spot)},
}  # fmt: skip


def assert_is(value: Any, annotation: Any) -> None:
    """A value has just the type that its annotation says, told without the code under test."""
    assert type(value) is EXACT.get(annotation, type(value))
    if annotation is datetime:
        assert value.tzinfo is UTC
    if annotation is Price:
        assert value.as_tuple().exponent == -2
    if annotation is Spot:
        assert value.at.tzinfo is UTC
        assert value.colour is None or type(value.colour) is Colour
        assert type(value.share) is float


# --- what no column can give back

TOO_LATE = datetime(9999, 12, 31, 23, 59, 59, tzinfo=WEST)
TOO_EARLY = datetime(1, 1, 1, tzinfo=BERLIN)

MISFITS: list[tuple[Any, Any, str]] = [
    (str, 5, "str is declared, and not int"),
    (str, None, "str is declared, and not NoneType"),
    (str, "\ud800", "lone surrogate"),
    (int, "5", "int is declared, and not str"),
    (int, 5.0, "int is declared, and not float"),
    (int, 2**63, "beyond 64 bits"),
    (int | None, -(2**63) - 1, "beyond 64 bits"),
    (float, float("nan"), "not a finite number"),
    (float, float("-inf"), "not a finite number"),
    (float | None, float("nan"), "not a finite number"),
    (float, 2**53 + 1, "no float holds"),
    (float, 10**400, "no float holds"),
    (float, True, "float is declared, and not bool"),
    (bool, 1, "bool is declared, and not int"),
    (bytes, "text", "bytes is declared"),
    (Price, Decimal("0.001"), "more than 2 decimal places"),
    (Price, Decimal("10000000"), "more than 9 digits"),
    (Price, Decimal("NaN"), "more than 9 digits"),
    (Price, 0.5, "Decimal is declared, and not float"),
    (datetime, datetime(2020, 1, 1), "without an offset"),
    (datetime, TOO_LATE, "outside the years 1 to 9999"),
    (datetime, TOO_EARLY, "outside the years 1 to 9999"),
    (datetime, date(2020, 1, 1), "datetime is declared, and not date"),
    (NaiveDatetime, datetime(2020, 1, 1, tzinfo=UTC), "with an offset"),
    (date, datetime(2020, 1, 1), "date is declared, and not datetime"),
    (time, time(1, tzinfo=UTC), "with an offset"),
    (timedelta, timedelta.max, "beyond 64 bits"),
    (UUID, "123e4567-e89b-12d3-a456-426614174000", "UUID is declared"),
    (Colour, "green", "no value of Colour"),
    (tuple[str, ...], "text", "tuple is declared, and not str"),
    (tuple[int, ...], (1, 2**63), "1: an integer beyond 64 bits"),
    (Spot, Spot(TOO_LATE, 1.0), "at: a time outside the years"),
    (tuple[Spot, ...], (Spot(datetime.now(UTC), float("inf")),), "0.share: not a finite"),
    (Spot, "no spot", "Spot is declared"),
]


FITS: dict[Any, Any] = {
    str: "a", int: 5, int | None: None, float: 0.5, float | None: None, bool: True, bytes: b"a",
    Price: Decimal("1.50"), datetime: datetime(2020, 1, 1, tzinfo=UTC),
    NaiveDatetime: datetime(2020, 1, 1), date: date(2020, 1, 1), time: time(1),
    timedelta: timedelta(1), UUID: UUID(int=7), Colour: Colour.RED, tuple[str, ...]: ("a",),
    tuple[int, ...]: (), Spot: Spot(datetime(2020, 1, 1, tzinfo=UTC), 0.5), tuple[Spot, ...]: (),
}  # fmt: skip


def do(number: int) -> dict[str, Any]:
    return {"type": "Do", "command_id": f"{number}", "id": "a", "number": number}


def decide(domain: Domain, *commands: dict[str, Any], size: int = 100) -> list[dict[str, Any]]:
    """The rows of these commands in batches of a size."""
    fold, partition = BatchDecider(domain, partitions=1, payload_bytes_max=65_536), Partition(0)
    rows = []
    entries = [entry(i, command) for i, command in enumerate(commands)]
    for batch in chunked(entries, [size] * len(entries)):
        decided = fold.decide(partition, Batch(0, batch))
        partition.apply(decided)
        rows += decided.rows.to_pylist()
    return rows


@pytest.mark.parametrize(
    ("annotation", "value", "why"),
    MISFITS,
    ids=[f"{i}-{why}" for i, (_, _, why) in enumerate(MISFITS)],
)
def test_what_a_column_cannot_give_back_is_a_rejection_with_the_fields_name(
    annotation: Any, value: Any, why: str
) -> None:
    fits = FITS[annotation]
    domain = domain_of({"one": annotation}, [{"one": v} for v in (fits, value, fits)], rule=False)
    commands = [do(number) for number in range(3)]
    rows = decide(domain, *commands)
    assert [row["event_type"] for row in rows] == ["Happened", REJECTED, "Happened"]
    assert rows[1]["reason"].startswith("a value does not fit its column: Happened.one")
    assert why in rows[1]["reason"]
    assert decide(domain, *commands, size=1) == rows, "however it is cut into batches"


def test_the_domain_may_allow_what_is_not_finite(tmp_path: Path) -> None:
    values = [float("nan"), float("inf"), float("-inf")]
    domain = domain_of({"one": AnyFloat}, [{"one": value} for value in values], rule=False)
    assert str([row["one"] for row in decide(domain, *map(do, range(3)))]) == str(values)


def test_a_value_of_a_row_that_has_no_column_rejects_the_command_and_names_the_field() -> None:
    bank_without_bounds = redeclared(
        bank, row=giving(lambda state: replace(row(state), balance="a lot"), AccountRow)
    )
    deposit = {"type": "Deposit", "account_id": "a", "command_id": "1", "cents": 5}
    (rejected,) = decide(bank_without_bounds, deposit)
    assert rejected["reason"] == (
        "a value does not fit its column: AccountRow.balance: int is declared, and not str"
    )


def test_a_mistake_in_row_is_told_with_the_command_and_is_no_rejection() -> None:
    fails = giving(lambda state: replace(row(state), balance=1 // (state.balance - 7)), AccountRow)
    broken = redeclared(bank, row=fails)
    deposit = {"type": "Deposit", "account_id": "a"}
    with pytest.raises(
        DomainFailed, match=r"command 2 .*ZeroDivisionError at .*test_values.py"
    ) as e:
        decide(
            broken,
            {**deposit, "command_id": "1", "cents": 5},
            {**deposit, "command_id": "2", "cents": 2},
        )
    assert e.value.stream_id == "1700000000000-1"


# --- commands


class When(Command):
    account_id: Identifier
    at: datetime | None = None
    times: tuple[datetime, ...] = ()
    wall: NaiveDatetime | None = None
    spot: Spot | None = None
    real: float = 0.0
    any_real: AnyFloat = 0.0


@pytest.mark.parametrize(
    ("given_fields", "reason"),
    [
        ({"at": "2020-01-01T10:00:00"}, "at: Input should have timezone info"),
        ({"times": ["2020-01-01T10:00:00"]}, "times.0: Input should have timezone info"),
        (
            {"spot": {"at": "2020-01-01T10:00:00", "share": 1}},
            "spot.at: Input should have timezone",
        ),
        ({"wall": "2020-01-01T10:00:00Z"}, "wall: Input should not have timezone info"),
        ({"at": "9999-12-31T23:59:59-10:00"}, "at: Input should be less than or equal to 9999-12"),
        ({"at": "0001-01-01T00:00:00+02:00"}, "at: Input should be greater than or equal to 0001"),
        ({"occurred_at": "9999-12-31T23:59:59-10:00"}, "occurred_at: Input should be less than or"),
        ({"occurred_at": "0001-01-01T01:59:59+02:00"}, "occurred_at: Input should be greater than"),
        ({"real": float("nan")}, "real: Input should be a finite number"),
        (
            {"spot": {"at": "2020-01-01T10:00:00Z", "share": float("inf")}},
            "spot.share: Input should",
        ),
    ],
)
def test_a_command_with_a_value_that_no_event_could_hold_is_unreadable_and_names_the_field(
    given_fields: dict[str, Any], reason: str
) -> None:
    domain = redeclared(bank, decide=taking(lambda state, command: [], When))
    (row,) = decide(domain, {"type": "When", "account_id": "a", "command_id": "1", **given_fields})
    assert (row["event_type"], row["reason"][: len(reason)]) == (UNREADABLE, reason)


@pytest.mark.parametrize(
    "given_fields",
    [
        {"at": "9999-12-31T13:59:59-10:00", "occurred_at": "9999-12-31T23:59:59.999999Z"},
        {"at": "0001-01-01T02:00:00+02:00", "occurred_at": "0001-01-01T00:00:00Z"},
        {"wall": "0001-01-01T00:00:00", "any_real": float("nan")},
        {"spot": {"at": "2020-01-01T10:00:00+02:00", "share": 1}, "times": []},
    ],
)
def test_what_an_event_can_hold_is_read(given_fields: dict[str, Any]) -> None:
    read_json = redeclared(bank, decide=taking(lambda state, command: [], When)).validate_json
    command = {"type": "When", "account_id": "a", "command_id": "1", **given_fields}
    assert isinstance(read_json(entry(0, command)[1] or b""), When)


def test_the_first_and_the_last_moment_come_back_from_the_log(tmp_path: Path) -> None:
    ends = ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"]
    deposit = {"type": "Deposit", "account_id": "a", "cents": 1}
    deposits = [{**deposit, "command_id": end, "occurred_at": end} for end in ends]
    pipeline = InProcess(tmp_path, bank, partitions=1)
    pipeline.run(0, *deposits)
    pipeline.restart()
    (account,) = read(pipeline.publish(), "accounts")["accounts"]
    pipeline.writer.close()
    assert account[-2:] == (datetime.min, datetime.max)


def test_a_model_of_pydantic_in_a_command_has_to_say_what_its_times_are() -> None:
    class Inner(BaseModel):
        at: datetime

    with pytest.raises(DomainInvalid, match="Outer holds Inner, which has a datetime: annotate"):

        class Outer(Command):
            inner: Inner | None = None


# --- declarations


@pytest.mark.parametrize(
    ("annotation", "advice"),
    [
        (dict[str, int], "use tuple[X, ...], where X is a dataclass of a key and its value"),
        (set[str], "use tuple[X, ...]"),
        (tuple[int, str], "or a dataclass"),
        (tuple, "or a dataclass"),
        (int | str, "use one type, or X | None"),
        (Literal["a", 1], "use str, int, float, bool, bytes, Decimal, datetime, date, time"),
        (Decimal, "Annotated[Decimal, Field(max_digits=12, decimal_places=2)]"),
        (Annotated[Decimal, Field(max_digits=39, decimal_places=2)], "38 at most"),
        (Loop, "Loop.inner: Loop cannot be a column; it would hold itself"),
        (Rights, "Rights cannot be a column; use str"),
        (object, "an Enum, Literal, X | None, tuple[X, ...], list[X], or a dataclass of these"),
    ],
    ids=str,
)
def test_a_type_that_cannot_be_a_column_is_refused_with_what_to_use(
    annotation: Any, advice: str
) -> None:
    with pytest.raises(DomainInvalid) as refused:
        record_of(make_dataclass("Event", [("one", annotation)]))
    assert advice in str(refused.value)
    assert str(refused.value).partition(":")[0] in ("Event.one", "Loop.inner")


@pytest.mark.parametrize(
    ("declared", "why"),
    [
        (field(init=False), "init=False: it would not come back from the log"),
        (field(default=None), "str is declared, and not NoneType"),
    ],
)
def test_a_field_that_would_not_come_back_is_refused(declared: Any, why: str) -> None:
    with pytest.raises(DomainInvalid) as refused:
        record_of(make_dataclass("Event", [("one", str, declared)]))
    assert str(refused.value) == f"Event.one: {why}"


# --- what is older


DEFAULTS: dict[str, tuple[Any, Any]] = {
    "text": (str, "it's"), "number": (int, -5), "real": (float, 0.5), "yes": (bool, True),
    "raw": (bytes, b"a\xff'"), "price": (Price, Decimal("0.00")), "day": (date, date(1, 2, 3)),
    "at": (datetime, datetime(2020, 1, 1, 10, tzinfo=BERLIN)),
    "wall": (NaiveDatetime, datetime.max),
    "clock": (time, time(1, 2, 3, 4)), "pause": (timedelta, timedelta(days=-1, microseconds=1)),
    "key": (UUID, UUID(int=7)), "colour": (Colour, Colour.RED), "level": (Level, Level.HIGH),
    "mixed": (Mixed, Mixed.NUMBER), "old": (Old, Old.ONE), "tags": (tuple[str, ...], ("a'b", "c")),
    "none": (tuple[str, ...], ()), "spot": (Spot, Spot(datetime(2020, 1, 1, tzinfo=UTC), 0.5)),
    "spots": (tuple[Spot, ...], (Spot(datetime(2020, 1, 1, tzinfo=UTC), 1.5, Colour.BLUE),)),
}  # fmt: skip


def test_a_new_field_of_any_type_has_its_default_in_old_events(tmp_path: Path) -> None:
    then = domain_of({"first": int}, [{"first": i} for i in range(2)], rule=False)
    now = domain_of({"first": int}, [{"first": i} for i in range(2)], rule=False)
    grown = [("first", int), *((n, t, field(default=d)) for n, (t, d) in DEFAULTS.items())]
    happened = make_dataclass("Happened", grown, frozen=True)
    now = redeclared(
        now,
        decide=taking(lambda state, command: [happened(command.number)], Do),
        evolve=taking(lambda state, event: Seen(event, state.done + 1), happened),
        row=giving(lambda state: state.last, happened),
    )
    pipeline = InProcess(tmp_path, then, partitions=1)
    pipeline.run(0, do(0))
    pipeline.writer.close()
    old = InProcess(tmp_path, now, partitions=1)
    state_old, _ = old.partitions[0].aggregates.get(("kind", "a")) or (None, 0)
    shown_old = read(old.publish(), "rows_of_it")["rows_of_it"]
    old.writer.close()
    fresh = InProcess(tmp_path / "new", now, partitions=1)
    fresh.run(0, do(0))
    state_new, _ = fresh.partitions[0].aggregates.get(("kind", "a")) or (None, 0)
    shown_new = read(fresh.publish(), "rows_of_it")["rows_of_it"]
    fresh.writer.close()
    assert repr(state_old) == repr(state_new)
    assert shown_old == shown_new


def test_a_value_that_an_enum_has_no_more_is_told(tmp_path: Path) -> None:
    class Smaller(StrEnum):
        BLUE = "blue"

    then = domain_of({"one": Colour}, [{"one": Colour.RED}], rule=False)
    pipeline = InProcess(tmp_path, then, partitions=1)
    pipeline.run(0, do(0))
    pipeline.writer.close()
    with pytest.raises(
        LogMismatch, match=r"Happened\.one: the log holds 'red', and this code has no"
    ):
        InProcess(tmp_path, domain_of({"one": Smaller}, []), partitions=1)


# --- readers


def test_text_with_nul_is_read_by_every_reader_as_it_was_sent(tmp_path: Path) -> None:
    text = "a\0b"
    commands = [
        {"type": "Deposit", "command_id": text, "account_id": text, "cents": 1, "note": text}
    ]
    pipeline = InProcess(tmp_path, bank, partitions=1)
    pipeline.run(0, *commands)
    pipeline.restart()
    assert pipeline.partitions[0].aggregates.get(("account", text)) is not None
    assert pipeline.run(0, *commands) == [], "its id is known"
    export(pipeline.publish(), tmp_path / "parquet")
    (path,) = (tmp_path / "events").glob("partition=0/*.parquet")
    with duckdb.connect(str(tmp_path / "read_models.duckdb"), read_only=True) as db:
        found = "SELECT note FROM events WHERE note = 'a' || chr(0) || 'b' AND aggregate_id = note"
        assert db.execute(found).fetchall() == [(text,)]
        for kind in ("csv", "json"):
            out = tmp_path / f"out.{kind}"
            db.execute(f"COPY (SELECT note FROM events) TO '{out}' (FORMAT {kind})")
            assert db.execute(f"SELECT note FROM '{out}'").fetchall() == [(text,)]
    pipeline.writer.close()
    accounts = tmp_path / "parquet" / "accounts.parquet"
    assert pd.read_csv(tmp_path / "out.csv")["note"].to_list() == [text]
    assert pl.read_csv(tmp_path / "out.csv")["note"].to_list() == [text]
    for read_parquet in (pq.read_table, pd.read_parquet, pl.read_parquet):
        note, account = read_parquet(path)["note"], read_parquet(accounts)["account_id"]
        assert [str(note[0]), str(account[0])] == [text, text]
