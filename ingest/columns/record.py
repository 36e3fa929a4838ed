"""A dataclass or named tuple of columns: its instances on their way to the log and back."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable
from dataclasses import MISSING, Field, asdict, dataclass, fields, is_dataclass
from datetime import UTC
from typing import Any, cast

from ingest.columns.column import Column, Misfit, not_a


@dataclass(frozen=True, slots=True)
class Part:
    """A field of a dataclass or of a named tuple."""

    name: str
    default: Any
    """`dataclasses.MISSING` where it has none."""
    init: bool = True
    kw_only: bool = False


def has_fields(cls: type) -> bool:
    """Whether it is a dataclass or a named tuple."""
    return is_dataclass(cls) or (issubclass(cls, tuple) and hasattr(cls, "_fields"))


def fields_of(cls: type) -> list[Part]:
    """The fields of a class that `has_fields`, in order."""
    if is_dataclass(cls):
        return [Part(f.name, _default(f), f.init, f.kw_only is True) for f in fields(cls)]
    named = cast(Any, cls)
    return [Part(name, named._field_defaults.get(name, MISSING)) for name in named._fields]


def _default(field: Field[Any]) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def as_dict(value: Any) -> dict[str, Any]:
    """A value of such a class by the names of its fields."""
    return (
        asdict(cast(Any, value)) if is_dataclass(value) else cast(dict[str, Any], value._asdict())
    )


class Record:
    """A class whose fields are columns: an event, a row of a read model, a part of those."""

    def __init__(self, cls: type, columns: dict[str, Column], defaults: dict[str, Any]) -> None:
        self.cls = cls
        self.columns = columns
        """Field → its column, in the fields' order."""
        self.defaults = defaults
        """Field → its default, as Arrow takes it."""
        self._by_name = any(field.kw_only for field in fields_of(cls))
        self.normal = self._compiled()

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
            raise not_a(self.cls.__name__, value)
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
        """A normal instance as Arrow takes a STRUCT."""
        found = ((n, c, getattr(value, n)) for n, c in self.columns.items())
        return {name: None if v is None else c.to_log(v) for name, c, v in found}

    def from_log(self, found: dict[str, Any]) -> Any:
        """An instance from what Arrow gives of a STRUCT."""
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
