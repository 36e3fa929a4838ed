"""Which column an annotation declares, and which columns a dataclass has."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Iterable
from dataclasses import MISSING, replace
from decimal import Decimal
from enum import Enum, Flag
from functools import cache, partial
from typing import Any, Literal

from pydantic.fields import FieldInfo

from ingest.columns.column import Column, Misfit
from ingest.columns.derived import decimal_column, enum_column, list_column, struct_column
from ingest.columns.plain import ANY_FLOAT, PLAIN
from ingest.columns.record import Record, fields_of, has_fields
from ingest.errors import DomainInvalid

ALLOWED = (
    "use str, int, float, bool, bytes, Decimal, datetime, date, time, timedelta, UUID, an Enum,"
    " Literal, X | None, tuple[X, ...], list[X], or a dataclass of these"
)


@cache
def record_of(cls: type) -> Record:
    """The columns of a dataclass or a named tuple; the same record each time.

    Raises `DomainInvalid`.
    """
    return _record(cls, ())


def _record(cls: type, around: tuple[type, ...]) -> Record:
    """`around` are the dataclasses that it is a part of."""
    hints = typing.get_type_hints(cls, include_extras=True)
    columns: dict[str, Column] = {}
    defaults: dict[str, Any] = {}
    for field in fields_of(cls):
        try:
            column = columns[field.name] = column_of(hints[field.name], around=(*around, cls))
            if not field.init:
                raise TypeError("init=False: it would not come back from the log")
            if field.default is not MISSING:
                normal = column.normal(field.default)
                defaults[field.name] = None if normal is None else column.to_log(normal)
        except (TypeError, Misfit) as error:
            raise DomainInvalid(f"{cls.__name__}.{field.name}: {error}") from None
    return Record(cls, columns, defaults)


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
        return list_column(origin, column_of(args[0], (), around))
    if annotation is Decimal:
        return decimal_column(
            _declared("max_digits", declared), _declared("decimal_places", declared)
        )
    if annotation is float and _declared("allow_inf_nan", declared):
        return ANY_FLOAT
    if annotation in PLAIN:
        return PLAIN[annotation]
    if isinstance(annotation, type):
        if issubclass(annotation, Enum) and not issubclass(annotation, Flag):
            return enum_column(annotation)
        if has_fields(annotation) and annotation not in around:
            return struct_column(_record(annotation, around))
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
    if isinstance(annotation, type) and has_fields(annotation):
        return "it would hold itself"
    return ALLOWED


def _declared(name: str, declared: Iterable[Any]) -> Any:
    """What an annotation says of its values by that name, in pydantic's words."""
    for said in declared:
        for part in said.metadata if isinstance(said, FieldInfo) else [said]:
            if getattr(part, name, None) is not None:
                return getattr(part, name)
    return None


def _or_none(normal: Callable[[Any], Any], value: Any) -> Any:
    return None if value is None else normal(value)
