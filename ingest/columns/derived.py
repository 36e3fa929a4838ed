"""Columns made from a declaration: a Decimal's digits, an Enum's members, elements, fields."""

from __future__ import annotations

import operator
from decimal import Context, Decimal, Inexact, InvalidOperation
from enum import Enum
from typing import Any

import pyarrow as pa

from ingest.columns.column import INT64, Column, Misfit, not_a
from ingest.columns.plain import text
from ingest.columns.record import Record

DECIMAL_DIGITS_MAX = 38

_EXACTLY = Context(prec=DECIMAL_DIGITS_MAX, traps=[Inexact, InvalidOperation])


def decimal_column(digits: int | None, scale: int | None) -> Column:
    """For a Decimal of so many digits, `scale` of them decimal places. Raises `TypeError`."""
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
            raise not_a("Decimal", value)
        if not value.is_finite() or abs(value) >= limit:
            raise Misfit(f"a number of more than {digits} digits, {scale} of them decimal places")
        try:
            found = value.quantize(last, context=_EXACTLY)
        except (Inexact, InvalidOperation):
            raise Misfit(f"a number of more than {scale} decimal places") from None
        # The log knows no negative zero.
        return found if found else Decimal(0).quantize(last)

    return Column(pa.decimal128(digits, scale), normal)


def enum_column(cls: type[Enum]) -> Column:
    """An Enum by its values where they make a column, else by its names."""
    values = [member.value for member in cls]
    stored: dict[Any, Any] = {member: member.name for member in cls}
    arrow = pa.string()
    if all(isinstance(value, str) for value in values):
        stored = {member: text(member.value) for member in cls}
    elif all(type(value) is int and value in INT64 for value in values):
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


def list_column(kind: type, inner: Column) -> Column:
    """For a `tuple` or a `list`, which `kind` says, of values of one column."""

    def normal(value: Any) -> Any:
        if not isinstance(value, tuple | list):
            raise not_a(kind.__name__, value)
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


def struct_column(record: Record) -> Column:
    """For a dataclass within another. Raises `TypeError` where it has no fields."""
    arrow = pa.struct([(name, column.type) for name, column in record.columns.items()])
    if not record.columns:
        raise TypeError(f"{record.cls.__name__} has no fields; use bool, or leave it out")
    return Column(arrow, record.part, to_log=record.to_log, from_log=record.from_log)
