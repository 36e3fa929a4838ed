"""Columns of single values: text, numbers, bytes, times, and how each is made normal."""

from __future__ import annotations

import math
import operator
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from uuid import UUID

import pyarrow as pa
from pydantic import AwareDatetime, NaiveDatetime

from ingest.columns.column import INT64, TIME, Column, Misfit, not_a

_EPOCH = datetime.fromtimestamp(0, UTC)
_EPOCH_NAIVE = _EPOCH.replace(tzinfo=None)


def text(value: Any) -> str:
    """Text as UTF-8 can hold it, as a plain `str`. Raises `Misfit`."""
    if not isinstance(value, str):
        raise not_a("str", value)
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
            raise not_a("int", value) from None
    if value not in INT64:
        raise Misfit("an integer beyond 64 bits")
    return value  # type: ignore[no-any-return]


def _float(value: Any) -> float:
    if type(value) is float:
        return value
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise not_a("float", value)
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
        raise not_a("bool", value)
    return value


def _bytes(value: Any) -> bytes:
    if not isinstance(value, bytes | bytearray | memoryview):
        raise not_a("bytes", value)
    return value if type(value) is bytes else bytes(value)


def _aware(value: Any) -> datetime:
    if not isinstance(value, datetime):
        raise not_a("datetime", value)
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
        raise not_a("datetime", value)
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
        raise not_a("date", value)
    return value if type(value) is date else date(value.year, value.month, value.day)


def _time(value: Any) -> time:
    if not isinstance(value, time):
        raise not_a("time", value)
    if value.tzinfo is not None:
        raise Misfit("a time of day with an offset; use a datetime")
    if type(value) is time and not value.fold:
        return value
    return time(value.hour, value.minute, value.second, value.microsecond)


def _timedelta(value: Any) -> timedelta:
    if not isinstance(value, timedelta):
        raise not_a("timedelta", value)
    if _microseconds(value) not in INT64:
        raise Misfit("a duration beyond 64 bits of microseconds")
    if type(value) is timedelta:
        return value
    return timedelta(value.days, value.seconds, value.microseconds)


def _uuid(value: Any) -> UUID:
    if not isinstance(value, UUID):
        raise not_a("UUID", value)
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

PLAIN: dict[Any, Column] = {
    str: Column(pa.string(), text, str),
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
"""Annotation → its column, where the annotation alone says it."""

ANY_FLOAT = Column(pa.float64(), _float, float)
"""For a float that may also be infinite or no number."""
