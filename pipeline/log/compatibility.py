"""Schema changes that are told: do a domain's events read what older declarations of them wrote?

An event type's fields and their types are fixed in a schema version; only fields with a default, or
that may be None, can come later. Any other change needs a new version, and the Upcast that is
printed here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields

import duckdb

from ingest.domain import Domain
from ingest.envelope import AS, OR_NULL, field_types
from pipeline.log.declared import Declared
from projections.session import session
from projections.sql import named

_ANNOTATIONS = {
    "string": "str",
    "int64": "int",
    "double": "float",
    "timestamp[us]": "datetime",
    "date32[day]": "date",
    "time64[us]": "time",
    "binary": "bytes",
}
"""What a dataclass says for a column's type, where the two differ."""

_NOTHING = {
    "string": "''",
    "int64": "0",
    "double": "0",
    "bool": "false",
    "timestamp[us]": "occurred_at",
    "date32[day]": "occurred_at::DATE",
    "binary": "''::BLOB",
}
"""What an Upcast may say for a field that older events did not have."""


def incompatible(domain: Domain, old: Iterable[Declared], holder: str = "the log") -> list[str]:
    """What is wrong with the domain's events, and what to write; a line for each event type.

    `old` are all declarations that `holder` was ever written with, the oldest first.
    """
    by_type: dict[str, list[Declared]] = {}
    for declaration in old:
        by_type.setdefault(declaration.event_type, []).append(declaration)
    problems: dict[str, str] = {}
    for event_type, olds in by_type.items():
        for problem in _problems(domain, event_type, olds, holder):
            problems.setdefault(event_type, problem)
    kept = {column.name: str(column.type) for column in domain.stored_schema}
    for event_type, olds in by_type.items():
        for problem in _retyped_columns(kept, olds, holder):
            problems.setdefault(event_type, problem)
    return [*problems.values()]


def _problems(domain: Domain, event_type: str, olds: list[Declared], holder: str) -> Iterator[str]:
    """What keeps an event type of now from reading its older declarations."""
    cls = domain.events.get(event_type)
    if cls is None:
        yield _not_declared(domain, event_type, olds[-1], holder)
        return
    for old in olds:
        yield from _moved(domain, old, holder)
    version = domain.schema_version(event_type)
    newest = max(old.schema_version for old in olds)
    if newest > version:
        yield (
            f"{holder} holds {event_type} in schema version {newest}, and this code knows"
            f" {version}: it is older than {holder}; upgrade it"
        )
        return
    now, changes = field_types(cls), _Changes(event_type, version)
    filled = {name for name, type_ in now.items() if type_.endswith(OR_NULL)} | {
        f.name for f in fields(cls) if (f.default, f.default_factory) != (MISSING, MISSING)
    }
    for old in olds:
        if old.schema_version == version:
            changes.add(old.fields, now, filled)
        else:
            yield from _not_raised(domain, old, now, filled)
    if told := ", ".join(changes.told(now)):
        yield (
            f"{event_type} has changed since {holder} was written with its schema version"
            f" {version}: {told}; {changes.remedy(cls.__name__, now)}"
        )


def _not_declared(domain: Domain, event_type: str, old: Declared, holder: str) -> str:
    """The event was renamed or removed, or this code is the older one."""
    alike = [cls.__name__ for cls in domain.events.values() if field_types(cls) == old.fields]
    cls = alike[0] if len(alike) == 1 else "…"
    return (
        f"{holder} holds {event_type} events, and the domain declares none of that name; a class"
        f' may be renamed or out of use, its event keeps its name: @event(name="{event_type}")'
        f" class {cls}"
        f" (or is this code older than {holder}? then upgrade it)"
    )


def _moved(domain: Domain, old: Declared, holder: str) -> Iterator[str]:
    """A row's aggregate is part of its key: under another name, its id is another aggregate's."""
    event_type, was, now = old.event_type, old.aggregate, domain.evolvers[old.event_type].name
    if was not in (None, now):
        yield f"{event_type} happens to {now} in the domain, and to {was} in {holder}; " + (
            f"an event stays with its aggregate: leave {event_type} with {was}, and give {now} an"
            " event of another name"
            if was in (a.name for a in domain.aggregates)
            else f'an aggregate keeps its name: Aggregate(name="{was}", …); in code it may be'
            " called anything"
        )


def _not_raised(
    domain: Domain, old: Declared, now: Mapping[str, str], filled: set[str]
) -> Iterator[str]:
    """Fields of now that neither are in an older version nor come from an Upcast."""
    made = {
        column
        for upcast in domain.upcasts
        if upcast.event_type == old.event_type and upcast.from_version >= old.schema_version
        for column in upcast.columns
    }
    for name in now.keys() - made:
        was = old.fields.get(name)
        if was is None:
            reason = "" if name in filled else "is missing"
        elif _column(was) == _column(now[name]) and not _reads(now[name], was):
            reason = f"is {_said(was)}"
        else:
            reason = "may be None" if was.endswith(OR_NULL) and name not in filled else ""
        if reason:
            yield (
                f"{old.event_type}: {name} {reason} in schema version {old.schema_version}, and no"
                f' Upcast makes it; add it to the columns of one: columns={{"{name}": "…"}}'
            )


def _retyped_columns(kept: Mapping[str, str], olds: list[Declared], holder: str) -> Iterator[str]:
    """Columns that the domain declares with another type, for whichever event and version."""
    for old in olds:
        for name, type_ in old.fields.items():
            if kept.get(name, _column(type_)) != _column(type_):
                yield (
                    f"{name} is {annotation_of(kept[name])} in the domain, and {holder} has it as"
                    f" {annotation_of(type_)}, of {old.event_type} in schema version"
                    f" {old.schema_version}; a column keeps its type: call the new field otherwise"
                )


@dataclass(slots=True)
class _Changes:
    """What has changed in an event type under one schema version; each is field → former type."""

    event_type: str
    version: int
    gone: dict[str, str] = field(default_factory=dict)
    retyped: dict[str, str] = field(default_factory=dict)
    required: dict[str, str] = field(default_factory=dict)
    """Fields that might be None, and may not any more."""
    new: list[str] = field(default_factory=list)

    def add(self, old: Mapping[str, str], now: Mapping[str, str], filled: set[str]) -> None:
        """Compare with one more older declaration; `filled` are fields that rows may lack."""
        for name, type_ in old.items():
            if name not in now:
                self.gone[name] = type_
            elif not _reads(now[name], type_):
                self.retyped[name] = type_
            elif type_.endswith(OR_NULL) and name not in filled:
                self.required[name] = type_
        self.new += [n for n in now if not (n in old or n in filled or n in self.new)]

    def told(self, now: Mapping[str, str]) -> Iterator[str]:
        """Each change in a few words."""
        for name in self.gone:
            yield f"{name} is gone"
        for name in self.new:
            yield f"{name} is new without a default"
        for name, type_ in self.retyped.items():
            yield f"{name} was {_said(type_)} and is {_said(now[name])}"
        for name in self.required:
            yield f"{name} might be None and may not any more"

    def remedy(self, cls: str, now: Mapping[str, str]) -> str:
        """What to write, ready to paste where the SQL can be guessed."""
        columns, left, retired, before = {}, dict(self.gone), dict(self.gone), ""
        for name in self.retyped:
            if _column(self.retyped[name]) == _column(now[name]):
                columns[name] = _sql(name)
                continue
            kind = re.split(r"\W", annotation_of(now[name]))[0].lower()
            columns[f"{name}_{kind}"] = _sql(name)
            before += f"a column keeps its type, so call the new {name} {name}_{kind}; "
            retired[name] = self.retyped[name]
        for name in (*self.required, *self.new):
            alike = [old for old, type_ in left.items() if _column(type_) == _column(now[name])]
            former = next(iter([*alike, *left]), None)
            left.pop(former or "", None)
            sql = _sql(former) if former else _NOTHING.get(_column(now[name]), "…")
            columns[name] = sql if name in self.new else f"coalesce({_sql(name)}, {sql})"
        if self.new and not self.gone:
            before += f"give {' and '.join(self.new)} a default, or "
        pairs = [f"{_literal(name)}: {_literal(sql)}" for name, sql in columns.items()]
        types = [f"{_literal(name)}: {annotation_of(type_)}" for name, type_ in retired.items()]
        given = f", retired={{{', '.join(types)}}}" if types else ""
        return (
            f"{before}give {cls} schema_version: ClassVar[int] = {self.version + 1}, and the domain"
            f" upcasts=(Upcast(event_type={_literal(self.event_type)}, from_version={self.version},"
            f" columns={{{', '.join(pairs)}}}{given}),)"
        )


def _column(field_type: str) -> str:
    """The column's type alone."""
    return field_type.removesuffix(OR_NULL).partition(AS)[0]


def _reads(now: str, old: str) -> bool:
    """Whether values of a field's old type are values of its type of now, but for None."""
    now, old = now.removesuffix(OR_NULL), old.removesuffix(OR_NULL)
    plain_text = now == "string" == _column(old)
    return now == old or plain_text


def _said(field_type: str) -> str:
    return "an Enum" if f"{AS}Enum" in field_type else annotation_of(field_type)


def annotation_of(field_type: str) -> str:
    """What a dataclass says for a field's type, without the null."""
    column, _, kind = field_type.removesuffix(OR_NULL).partition(AS)
    if kind in ("UUID", "timedelta"):
        return kind
    if digits := re.fullmatch(r"decimal128\((\d+), (\d+)\)", column):
        return f"Annotated[Decimal, Field(max_digits={digits[1]}, decimal_places={digits[2]})]"
    if item := re.fullmatch(r"list<\w+: (.*)>", column):
        return f"tuple[{annotation_of(item[1])}, ...]"
    return _ANNOTATIONS.get(column, column)


def _literal(text: str) -> str:
    """Python's, in double quotes."""
    return json.dumps(text, ensure_ascii=False)


def _sql(name: str) -> str:
    """A column in SQL, quoted only where it has to be."""
    with session() as db:
        try:
            found = db.execute(f"SELECT {name} FROM (SELECT 1 AS {named(name)})").fetchall()
        except duckdb.Error:
            found = []
    return name if found == [(1,)] else named(name)
