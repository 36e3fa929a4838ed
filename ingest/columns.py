"""What a field may hold, and how it stands in a column: both directions, in one place.

    str int float bool bytes     as they are; an int has 64 bits, a float is finite
    Decimal                      DECIMAL of the digits that its annotation declares
    datetime                     a timestamp in UTC; with the annotation NaiveDatetime as it is
    date time                    as they are; a time has no offset
    timedelta                    its microseconds
    UUID                         its text, which every reader of Parquet shows
    Enum                         its value, if all values are text or all are integers; or its name
    Literal                      like the type of its values
    tuple[X, ...] list[X]        LIST
    a dataclass                  STRUCT

An event is made `normal` before `evolve` sees it: as the log will give it back. So a state is the
same before and after a restart.
"""

from __future__ import annotations

import math
import operator
import types
import typing
from collections.abc import Callable, Iterable
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Context, Decimal, Inexact, InvalidOperation
from enum import Enum, Flag
from functools import cache, partial
from typing import Any, Literal
from uuid import UUID

import pyarrow as pa
from pydantic import AwareDatetime, NaiveDatetime
from pydantic.fields import FieldInfo

from ingest.errors import DomainInvalid

TIME = pa.timestamp("us")
"""UTC; without a zone, so that no session's time zone changes a day."""

ALLOWED = (
    "use str, int, float, bool, bytes, Decimal, datetime, date, time, timedelta, UUID, an Enum,"
    " Literal, X | None, tuple[X, ...], list[X], or a dataclass of these"
)

DECIMAL_DIGITS_MAX = 38

_EPOCH = datetime.fromtimestamp(0, UTC)
_EPOCH_NAIVE = _EPOCH.replace(tzinfo=None)
_INT64 = range(-(2**63), 2**63)
_EXACTLY = Context(prec=DECIMAL_DIGITS_MAX, traps=[Inexact, InvalidOperation])


class Misfit(ValueError):
    """A value that its column could not give back. Says in which field and why, and not which."""

    def __init__(self, why: str, *path: str) -> None:
        super().__init__(f"{'.'.join(path)}: {why}" if path else why)
        self._why = why
        self._path = path

    def within(self, name: str) -> Misfit:
        return Misfit(self._why, name, *self._path)


def as_is(value: Any) -> Any:
    return value


@dataclass(frozen=True, slots=True)
class Column:
    """How the values of one annotation stand in the log. None is always NULL."""

    type: pa.DataType
    normal: Callable[[Any], Any]
    """A value as the log gives it back; the same object where it is that. Raises `Misfit`."""
    kind: type | None = None
    """Values of just this type that pass `test` are normal, unless Arrow refuses them."""
    test: str = ""
    """An expression in which {0} stands for the value; empty where all pass."""
    to_log: Callable[[Any], Any] = as_is
    """From a normal value to what `array_of` takes."""
    from_log: Callable[[Any], Any] = as_is
    """From what `values_of` gives to the value. Raises `LookupError` where it is none."""
    optional: bool = False
    """Whether None is normal."""


class Record:
    """A dataclass whose fields are columns: an event, a row of a read model, a part of those."""

    def __init__(self, cls: type, around: tuple[type, ...] = ()) -> None:
        """`around` are the dataclasses that it is a part of. Raises `DomainInvalid`."""
        hints = typing.get_type_hints(cls, include_extras=True)
        self.cls = cls
        self.columns: dict[str, Column] = {}
        self.defaults: dict[str, Any] = {}
        """Field → its default, as Arrow takes it."""
        for field in fields(cls):
            try:
                self._add(field, column_of(hints[field.name], around=(*around, cls)))
            except (TypeError, Misfit) as error:
                raise DomainInvalid(f"{cls.__name__}.{field.name}: {error}") from None
        self._by_name = any(field.kw_only for field in fields(cls))
        self.normal = self._compiled()

    def _add(self, field: Field[Any], column: Column) -> None:
        if not field.init:
            raise TypeError("init=False: it would not come back from the log")
        self.columns[field.name] = column
        default = field.default
        if field.default_factory is not MISSING:
            default = field.default_factory()
        if default is not MISSING:
            normal = column.normal(default)
            self.defaults[field.name] = None if normal is None else column.to_log(normal)

    def make_all(self, columns: Iterable[Iterable[Any]]) -> Iterable[Any]:
        """Instances from a list of values for each field, in the fields' order."""
        return (
            map(self.make, zip(*columns, strict=True)) if self._by_name else map(self.cls, *columns)
        )

    def make(self, values: Iterable[Any]) -> Any:
        """An instance with these values, in the fields' order."""
        if self._by_name:
            return self.cls(**dict(zip(self.columns, values, strict=True)))
        return self.cls(*values)

    def checked(self, value: Any) -> Any:
        """As the log gives it back, each field looked at. Raises `Misfit`, which names the field.

        `normal` says the same but of values that Arrow itself refuses, and takes a tenth as long.
        """
        try:
            return self._checked(value)
        except Misfit as misfit:
            raise misfit.within(self.cls.__name__) from None

    def part(self, value: Any) -> Any:
        """The same for a value of a field."""
        if type(value) is not self.cls:
            raise _not(self.cls.__name__, value)
        return self._checked(value)

    def _checked(self, value: Any) -> Any:
        given = [getattr(value, name) for name in self.columns]
        normal = []
        for found, (name, column) in zip(given, self.columns.items(), strict=True):
            try:
                normal.append(column.normal(found))
            except Misfit as misfit:
                raise misfit.within(name) from None
        return value if all(map(operator.is_, given, normal)) else self.make(normal)

    def to_log(self, value: Any) -> dict[str, Any]:
        found = ((n, c, getattr(value, n)) for n, c in self.columns.items())
        return {name: None if v is None else c.to_log(v) for name, c, v in found}

    def from_log(self, found: dict[str, Any]) -> Any:
        values = ((c, found.get(name)) for name, c in self.columns.items())
        return self.make(None if v is None else c.from_log(v) for c, v in values)

    def _compiled(self) -> Callable[[Any], Any]:
        """`checked` for every event: one expression passes what is normal already, and else only
        the other fields are looked at. A loop would take three times as long.
        """
        known: dict[str, Any] = {
            "cls": self.cls, "checked": self.checked, "Misfit": Misfit, "UTC": UTC,
            "isfinite": math.isfinite,
        }  # fmt: skip
        conditions, values = [], []
        for number, (name, column) in enumerate(self.columns.items()):
            field = f"value.{name}"
            known[f"kind{number}"], known[f"normal{number}"] = column.kind, column.normal
            condition = f"type({field}) is kind{number}"
            if column.test:
                condition += f" and {column.test.format(field)}"
            if column.optional:
                condition = f"({field} is None or {condition})"
            conditions.append(condition if column.kind else "False")
            given = f"{field} if {conditions[-1]} else normal{number}({field})"
            values.append(f"{name}={given}" if self._by_name else given)
        source = f"""
def normal(value):
    if {" and ".join(conditions) or "True"}:
        return value
    try:
        return cls({", ".join(values)})
    except Misfit:
        return checked(value)  # which says where
"""
        exec(source, known)
        normal: Callable[[Any], Any] = known["normal"]
        return normal


record_of = cache(Record)


def column_of(
    annotation: Any, declared: Iterable[Any] = (), around: tuple[type, ...] = ()
) -> Column:
    """The column for a field's annotation. Raises `TypeError`, which says what to use instead.

    `declared` is what stands beside a type in `Annotated`; `around` are the dataclasses around it.
    """
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return column_of(args[0], [*declared, *args[1:]], around)
    if isinstance(annotation, typing.NewType):
        return column_of(annotation.__supertype__, declared, around)
    if origin is Literal and len({type(value) for value in args}) == 1:
        return column_of(type(args[0]), declared, around)
    if origin in (typing.Union, types.UnionType) and len(args) == 2 and type(None) in args:
        (some,) = (a for a in args if a is not type(None))
        inner = column_of(some, declared, around)
        return replace(inner, normal=partial(_or_none, inner.normal), optional=True)
    if origin is list or (origin is tuple and args[1:] == (...,)):
        return _list(origin, column_of(args[0], (), around))
    if annotation is Decimal:
        return _decimal(declared)
    if annotation is float and _declared("allow_inf_nan", declared):
        return Column(pa.float64(), _float, float)
    if annotation in _PLAIN:
        return _PLAIN[annotation]
    if isinstance(annotation, type):
        if issubclass(annotation, Enum) and not issubclass(annotation, Flag):
            return _enum(annotation)
        if is_dataclass(annotation) and annotation not in around:
            return _struct(Record(annotation, around))
    raise TypeError(f"{_name(annotation)} cannot be a column; {_instead(annotation, origin)}")


def _name(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)


def _instead(annotation: Any, origin: Any) -> str:
    kind = origin or annotation
    if kind is dict:
        return "use tuple[X, ...], where X is a dataclass of a key and its value"
    if kind in (set, frozenset):
        return "use tuple[X, ...]"
    if kind is tuple:
        return "use tuple[X, ...] for any number of one type, or a dataclass"
    if kind in (typing.Union, types.UnionType):
        return "use one type, or X | None"
    if isinstance(annotation, type) and is_dataclass(annotation):
        return "it would hold itself"
    return ALLOWED


def _declared(name: str, declared: Iterable[Any]) -> Any:
    """What an annotation says of its values by that name, in pydantic's words."""
    for said in declared:
        for part in said.metadata if isinstance(said, FieldInfo) else [said]:
            if getattr(part, name, None) is not None:
                return getattr(part, name)
    return None


def _not(kind: str, value: Any) -> Misfit:
    return Misfit(f"{kind} is declared, and not {type(value).__name__}")


def _or_none(normal: Callable[[Any], Any], value: Any) -> Any:
    return None if value is None else normal(value)


def _str(value: Any) -> str:
    if not isinstance(value, str):
        raise _not("str", value)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Misfit("half a character, a lone surrogate, is no text") from None
    return value if type(value) is str else str.__str__(value)


def _int(value: Any) -> int:
    if type(value) is not int:
        try:
            value = int(operator.index(value))  # True, a member of IntEnum, an integer of NumPy
        except TypeError:
            raise _not("int", value) from None
    if value not in _INT64:
        raise Misfit("an integer beyond 64 bits")
    return value  # type: ignore[no-any-return]


def _float(value: Any) -> float:
    if type(value) is float:
        return value
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise _not("float", value)
    try:
        number = float(value)
    except OverflowError:
        number = math.nan
    if isinstance(value, int) and number != value:
        raise Misfit("an integer that no float holds exactly")
    return number


def _finite(value: Any) -> float:
    number = _float(value)
    if not math.isfinite(number):
        raise Misfit("not a finite number; Annotated[float, Field(allow_inf_nan=True)] allows it")
    return number


def _bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _not("bool", value)
    return value


def _bytes(value: Any) -> bytes:
    if not isinstance(value, bytes | bytearray | memoryview):
        raise _not("bytes", value)
    return value if type(value) is bytes else bytes(value)


def _aware(value: Any) -> datetime:
    if not isinstance(value, datetime):
        raise _not("datetime", value)
    if value.tzinfo is UTC:
        return _plain_datetime(value)
    try:
        utc = _EPOCH + (value - _EPOCH)  # astimezone would ask the zone twice
        return utc if type(utc) is datetime else _plain_datetime(utc)
    except TypeError:
        raise Misfit(
            "a datetime without an offset; give it one, or annotate NaiveDatetime"
        ) from None
    except OverflowError:
        raise Misfit("a time outside the years 1 to 9999 in UTC") from None


def _naive(value: Any) -> datetime:
    if not isinstance(value, datetime):
        raise _not("datetime", value)
    if value.tzinfo is not None:
        raise Misfit("a datetime with an offset; annotate datetime")
    return _plain_datetime(value)


def _plain_datetime(value: datetime) -> datetime:
    if type(value) is datetime and not value.fold:
        return value
    day = value.year, value.month, value.day
    return datetime(*day, value.hour, value.minute, value.second, value.microsecond, value.tzinfo)


def _date(value: Any) -> date:
    if not isinstance(value, date) or isinstance(value, datetime):
        raise _not("date", value)
    return value if type(value) is date else date(value.year, value.month, value.day)


def _time(value: Any) -> time:
    if not isinstance(value, time):
        raise _not("time", value)
    if value.tzinfo is not None:
        raise Misfit("a time of day with an offset; use a datetime")
    if type(value) is time and not value.fold:
        return value
    return time(value.hour, value.minute, value.second, value.microsecond)


def _timedelta(value: Any) -> timedelta:
    if not isinstance(value, timedelta):
        raise _not("timedelta", value)
    if _microseconds(value) not in _INT64:
        raise Misfit("a duration beyond 64 bits of microseconds")
    if type(value) is timedelta:
        return value
    return timedelta(value.days, value.seconds, value.microseconds)


def _uuid(value: Any) -> UUID:
    if not isinstance(value, UUID):
        raise _not("UUID", value)
    return value if type(value) is UUID else UUID(int=value.int)


def _microseconds(value: timedelta) -> int:
    return (value.days * 86_400 + value.seconds) * 1_000_000 + value.microseconds


def _utc(found: int | datetime) -> datetime:
    """From what Arrow gives: a column of times is read as integers, which takes a tenth as long."""
    if isinstance(found, int):
        return _EPOCH + timedelta(0, 0, found)
    return found.replace(tzinfo=UTC)


def _unzoned(found: int | datetime) -> datetime:
    return _utc(found).replace(tzinfo=None)


_DATETIME = Column(
    TIME,
    _aware,
    datetime,
    "{0}.tzinfo is UTC and not {0}.fold",
    lambda value: value - _EPOCH,
    _utc,
)
_NAIVE = "{0}.tzinfo is None and not {0}.fold"

_PLAIN: dict[Any, Column] = {
    str: Column(pa.string(), _str, str),
    int: Column(pa.int64(), _int, int),
    float: Column(pa.float64(), _finite, float, "isfinite({0})"),
    bool: Column(pa.bool_(), _bool, bool),
    bytes: Column(pa.binary(), _bytes, bytes),
    datetime: _DATETIME,
    AwareDatetime: _DATETIME,
    NaiveDatetime: Column(
        TIME, _naive, datetime, _NAIVE, lambda value: value - _EPOCH_NAIVE, _unzoned
    ),
    date: Column(pa.date32(), _date, date),
    time: Column(pa.time64("us"), _time, time, _NAIVE),
    timedelta: Column(
        pa.int64(),
        _timedelta,
        timedelta,
        to_log=_microseconds,
        from_log=lambda found: timedelta(0, 0, found),
    ),
    UUID: Column(pa.string(), _uuid, UUID, to_log=str, from_log=UUID),
}


def _decimal(declared: Iterable[Any]) -> Column:
    digits, scale = (_declared(name, declared) for name in ("max_digits", "decimal_places"))
    if digits is None or scale is None or not 0 <= scale <= digits <= DECIMAL_DIGITS_MAX:
        raise TypeError(
            "a Decimal declares its digits, 38 at most, and how many are behind the point:"
            " Annotated[Decimal, Field(max_digits=12, decimal_places=2)]"
        )
    last, limit = Decimal(1).scaleb(-scale), Decimal(1).scaleb(digits - scale)

    def normal(value: Any) -> Decimal:
        if type(value) is int:
            value = Decimal(value)
        if not isinstance(value, Decimal):
            raise _not("Decimal", value)
        if not value.is_finite() or abs(value) >= limit:
            raise Misfit(f"a number of more than {digits} digits, {scale} of them decimal places")
        try:
            found = value.quantize(last, context=_EXACTLY)
        except (Inexact, InvalidOperation):
            raise Misfit(f"a number of more than {scale} decimal places") from None
        # The log knows no negative zero.
        return found if found else Decimal(0).quantize(last)

    return Column(pa.decimal128(digits, scale), normal)


def _enum(cls: type[Enum]) -> Column:
    """By its values where they make a column, else by its names."""
    values = [member.value for member in cls]
    stored: dict[Any, Any] = {member: member.name for member in cls}
    arrow = pa.string()
    if all(isinstance(value, str) for value in values):
        stored = {member: _str(member.value) for member in cls}
    elif all(type(value) is int and value in _INT64 for value in values):
        stored = {member: member.value for member in cls}
        arrow = pa.int64()
    members = {value: member for member, value in stored.items()}

    def normal(value: Any) -> Any:
        if type(value) is cls:
            return value
        try:
            return cls(value)
        except ValueError:
            raise Misfit(f"no value of {cls.__name__}") from None

    return Column(arrow, normal, cls, "", stored.__getitem__, members.__getitem__)


def array_of(values: Iterable[Any], arrow: pa.DataType) -> pa.Array:
    """A column of what `Column.to_log` gives: times as durations since 1970.

    Of datetimes Arrow would ask each for its offset, which takes ten times as long.
    """
    spans = _spans(arrow)
    array = pa.array(values, spans)
    return array if spans is arrow else array.view(arrow)


def table_of(columns: Iterable[Any], schema: pa.Schema) -> pa.Table:
    """Columns as Arrow's or as values of the schema's types, in its order."""
    arrays = [
        column if isinstance(column, pa.Array) else array_of(column, field.type)
        for column, field in zip(columns, schema, strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


@cache
def _spans(arrow: pa.DataType) -> pa.DataType:
    """A type with durations in place of timestamps; the same object where there are none."""
    if arrow == TIME:
        return pa.duration("us")
    if pa.types.is_list(arrow):
        inner = _spans(arrow.value_type)
        return arrow if inner is arrow.value_type else pa.list_(pa.field("element", inner))
    if pa.types.is_struct(arrow):
        parts = [(field.name, _spans(field.type)) for field in arrow]
        return (
            arrow
            if all(t is f.type for (_, t), f in zip(parts, arrow, strict=True))
            else pa.struct(parts)
        )
    return arrow


def values_of(array: pa.Array | pa.ChunkedArray) -> list[Any]:
    """What `Column.from_log` takes: of a column of times, microseconds since 1970."""
    found: list[Any] = (
        array.cast(TIME).cast(pa.int64()) if pa.types.is_timestamp(array.type) else array
    ).to_pylist()
    return found


def _list(kind: type, inner: Column) -> Column:
    def normal(value: Any) -> Any:
        if not isinstance(value, tuple | list):
            raise _not(kind.__name__, value)
        found = []
        for number, one in enumerate(value):
            try:
                found.append(inner.normal(one))
            except Misfit as misfit:
                raise misfit.within(str(number)) from None
        same = type(value) is kind and all(map(operator.is_, value, found))
        return value if same else kind(found)

    return Column(
        pa.list_(pa.field("element", inner.type)),  # as Parquet names it
        normal,
        to_log=lambda value: [None if v is None else inner.to_log(v) for v in value],
        from_log=lambda found: kind(None if v is None else inner.from_log(v) for v in found),
    )


def _struct(record: Record) -> Column:
    arrow = pa.struct([(name, column.type) for name, column in record.columns.items()])
    if not record.columns:
        raise TypeError(f"{record.cls.__name__} has no fields; use bool, or leave it out")
    return Column(arrow, record.part, to_log=record.to_log, from_log=record.from_log)
