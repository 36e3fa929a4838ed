"""Schema changes are told, with what to write, before anything is written."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, field, make_dataclass, replace
from datetime import date, datetime
from enum import StrEnum
from operator import itemgetter
from pathlib import Path
from typing import Any
from zlib import crc32

import duckdb
import pyarrow as pa
import pytest

from ingest.aggregate import Aggregate
from ingest.domain import Domain, Upcast
from ingest.errors import LogDamaged, LogMismatch
from ingest.server import EmbeddedServer
from pipeline.log.compatibility import incompatible
from pipeline.log.declared import declared
from pipeline.log.log import Log
from pipeline.log.schemas import Schemas, declare, remembered
from pipeline.operate.as_of import as_of
from pipeline.operate.history import history
from pipeline.operate.verify import verify
from pipeline.read.rebuild import rebuild
from pipeline.settings import Settings
from projections.upcast import check_upcasts
from tests.command_line import one_line_of
from tests.declaring import taking
from tests.domains import shop
from tests.running import Up, foldlog

Fields = Mapping[str, Any]
OLD: Fields = {"name": str, "cents": int, "note": str | None}


class Colour(StrEnum):
    RED = "red"


def domain_of(upcasts: tuple[Upcast, ...] = (), version: int = 1, **events: Fields) -> Domain:
    """A domain with such events; a field may be a type, or a type and its default."""
    classes = {
        name: make_dataclass(
            name,
            [
                (f, *type_) if isinstance(type_, tuple) else (f, type_)
                for f, type_ in fields.items()
            ],
            namespace={"schema_version": version},
            kw_only=True,
        )
        for name, fields in events.items()
    }
    till = Aggregate(
        name="till",
        key="till",
        initial=shop.Till(),
        decide=taking(lambda state, command: [], shop.Sell),
        evolve=taking(lambda state, event: state, *classes.values()),
        table="tills",
    )
    return Domain("shop", (till,), upcasts=upcasts)


def pasted(line: str) -> Upcast:
    """The Upcast that a line says, as Python reads it."""
    found = re.search(r"Upcast\(.*?\)(?=,\)$)", line)
    assert found, line
    upcast = eval(found[0], {"Upcast": Upcast, "date": date, "datetime": datetime})
    assert isinstance(upcast, Upcast)
    return upcast


@pytest.mark.parametrize(
    ("changed", "told", "columns", "retired"),
    [
        ({"title": str}, "name is gone, title is new", {"title": "name"}, {"name": str}),
        ({"dollars": float}, "cents is gone, dollars is new", {"dollars": "cents"}, {"cents": int}),
        ({}, "note is gone", {}, {"note": str}),
        ({"on": date}, "on is new without a default", {"on": "occurred_at::DATE"}, {}),
        ({"name": int}, "name was str and is int", {"name_int": "name"}, {"name": str}),
        ({"cents": float}, "cents was int and is float", {"cents_float": "cents"}, {"cents": int}),
        ({"name": Colour}, "name was str and is an Enum", {"name": "name"}, {}),
        ({"note": str}, "note might be None", {"note": "coalesce(note, '')"}, {}),
    ],
)
def test_a_change_without_a_version_is_told_with_an_upcast_that_heals_it(
    changed: dict[str, Any], told: str, columns: dict[str, str], retired: dict[str, type]
) -> None:
    gone = {name for name in OLD if f"{name} is gone" in told}
    fields = {**{n: t for n, t in OLD.items() if n not in gone}, **changed}
    old = declared(domain_of(Sold=OLD, Seen={"at": datetime}))
    (line,) = incompatible(domain_of(Sold=fields, Seen={"at": datetime}), old)
    assert line.startswith("Sold has changed since the log was written with its schema version 1")
    assert told in line
    assert "schema_version: ClassVar[int] = 2" in line
    upcast = pasted(line)
    assert (upcast.columns, upcast.retired) == (columns, retired)
    renamed = {n: f"{n}_{t.__name__}" for n, t in fields.items() if f"{n}_" in "".join(columns)}
    mended = {renamed.get(n, n): t for n, t in fields.items()}
    now = domain_of((upcast,), 2, Sold=mended)
    check_upcasts(now)
    assert incompatible(now, [d for d in old if d.event_type == "Sold"]) == []


@pytest.mark.parametrize(
    "fields",
    [
        {**OLD, "channel": (str, field(default="web"))},
        {**OLD, "channel": str | None},
        {**OLD, "cents": int | None},
        {**OLD, "colour": str},
        {**OLD, "note": (str, field(default=""))},
        dict(reversed([*OLD.items()])),
    ],
)
def test_what_old_events_can_be_read_with_needs_nothing(fields: Fields) -> None:
    old = {**OLD, "colour": Colour} if "colour" in fields else OLD
    assert incompatible(domain_of(Sold=fields), declared(domain_of(Sold=old))) == []


def test_a_default_may_not_go_again() -> None:
    old = declared(domain_of(Sold=OLD))
    old += declared(domain_of(Sold={**OLD, "channel": (str, field(default="web"))}))
    (line,) = incompatible(domain_of(Sold={**OLD, "channel": str}), old)
    assert "channel is new without a default; give channel a default, or" in line


def test_an_event_that_is_missing_is_said_so() -> None:
    old = declared(domain_of(Sold=OLD, Seen={"at": datetime}))
    (line,) = incompatible(domain_of(Sold=OLD, Looked={"at": datetime}), old)
    assert line.startswith("the log holds Seen events, and the domain declares none of that name")
    assert 'its event keeps its name: @event(name="Seen") class Looked' in line


def of_aggregates(**events: list[str]) -> Domain:
    """A domain whose aggregates have these events."""
    kinds = []
    for name, found in events.items():
        (kind,) = domain_of(**dict.fromkeys(found, OLD)).aggregates
        command = type(f"Do_{name}", (shop.Sell,), {"__annotations__": {}})
        decide = taking(lambda state, command: [], command)
        kinds.append(replace(kind, name=name, table=f"all_{name}", decide=decide))
    return Domain("shop", tuple(kinds))


def test_an_aggregate_keeps_its_name() -> None:
    old = declared(of_aggregates(cart=["Opened", "Closed"], stock=["Counted"]))
    assert incompatible(of_aggregates(stock=["Counted"], cart=["Closed", "Opened"]), old) == []
    lines = incompatible(of_aggregates(basket=["Opened", "Closed"], stock=["Counted"]), old)
    assert lines == [
        f"{event} happens to basket in the domain, and to cart in the log; an aggregate keeps its"
        ' name: Aggregate(name="cart", …); in code it may be called anything'
        for event in ("Opened", "Closed")
    ]


def test_an_event_stays_with_its_aggregate() -> None:
    old = declared(of_aggregates(cart=["Opened", "Paid"], order=["Placed"]))
    (line,) = incompatible(of_aggregates(cart=["Opened"], order=["Placed", "Paid"]), old)
    assert line == (
        "Paid happens to order in the domain, and to cart in the log; an event stays with its"
        " aggregate: leave Paid with cart, and give order an event of another name"
    )
    new = of_aggregates(cart=["Opened", "Paid"], order=["Placed", "PaidFor"])
    assert incompatible(new, old) == []


def test_declarations_that_do_not_say_the_aggregate_fit_any_and_the_next_commit_says_it(
    tmp_path: Path,
) -> None:
    log = Log.create(tmp_path / "events", partitions=1, domain="shop")
    before, now = of_aggregates(cart=["Opened"]), of_aggregates(basket=["Opened"])
    unsaid = [asdict(replace(found, aggregate=None)) for found in declared(before)]
    for declaration in unsaid:
        del declaration["aggregate"]
    content = {"crc32": crc32(json.dumps(unsaid).encode()), "declared": unsaid}
    declare(log, 0, json.dumps(content).encode())
    Schemas(now, log).note(pa.Table.from_pylist([{"event_type": "Opened"}], schema=now.schema))
    with pytest.raises(LogMismatch, match="Opened happens to cart in the domain, and to basket"):
        Schemas(before, log)


def test_a_newer_version_is_said_so() -> None:
    old = declared(shop.now)
    (line,) = incompatible(shop.then, old)
    assert line == (
        "the log holds Sold in schema version 3, and this code knows 1: it is older than the log;"
        " upgrade it"
    )
    assert incompatible(shop.now, declared(shop.then) + old) == []


def test_a_version_whose_upcasts_forget_a_field_is_told() -> None:
    for change, told in [
        ({"weight": int}, "weight is missing"),
        ({"note": str}, "note may be None"),
        ({"name": Colour}, "name is str"),
    ]:
        fields = {**OLD, **change}
        empty = Upcast(event_type="Sold", from_version=1, columns={})
        (line,) = incompatible(domain_of((empty,), 2, Sold=fields), declared(domain_of(Sold=OLD)))
        assert line.startswith(f"Sold: {told} in schema version 1, and no Upcast makes it")
        made = replace(empty, columns=dict.fromkeys(change, "…"))
        assert not incompatible(domain_of((made,), 2, Sold=fields), declared(domain_of(Sold=OLD)))


def test_a_column_keeps_its_type_for_every_event_and_version() -> None:
    upcast = Upcast(event_type="Sold", from_version=1, columns={"name": "name::BIGINT"})
    (line,) = incompatible(
        domain_of((upcast,), 2, Sold={**OLD, "name": int}), declared(domain_of(Sold=OLD))
    )
    assert "name is int in the domain, and the log has it as str" in line


def test_of_two_writers_with_other_fields_the_second_is_told(tmp_path: Path) -> None:
    log = Log.create(tmp_path / "events", partitions=1, domain="shop")
    first, second = domain_of(Sold=OLD), domain_of(Sold={**OLD, "cents": float})
    one, other, same = Schemas(first, log), Schemas(second, log), Schemas(first, log)
    one.note(first.schema.empty_table())
    assert remembered(log) == []
    rows = pa.Table.from_pylist([{"event_type": "Sold"}], schema=first.schema)
    one.note(rows)
    with pytest.raises(LogMismatch, match="cents was int and is float"):
        other.note(rows)
    same.note(rows)
    assert remembered(log) == declared(first)


def test_what_is_remembered_is_found_damaged_or_missing(settings: Settings) -> None:
    log = Log.create(settings.events, partitions=1, domain="shop")
    for number in range(3):
        declare(log, number, b'{"crc32": 0, "declared": [{}]}')
    with pytest.raises(LogDamaged, match=r"_schemas/0\.json cannot be read \(its checksum"):
        remembered(log)
    assert "_schemas/0.json cannot be read" in foldlog(settings, "verify").stdout
    (settings.events / "_schemas" / "1.json").unlink()
    with pytest.raises(LogDamaged, match=r"_schemas/1\.json is missing"):
        remembered(log)


# --- started for real

MODULE = """
from dataclasses import asdict, dataclass, fields, replace
from typing import ClassVar
from ingest import Aggregate, Command, Domain, Identifier, Upcast, event

@event
class Opened:
    {version}
    {fields}

{noted}
class Noted:
    text: str

class Open(Command):
    box_id: Identifier
    {fields}

class Note(Command):
    box_id: Identifier
    text: str

@dataclass(frozen=True)
class Box:
    opened: str = ""
    notes: int = 0

def decide(box, command: Open | Note):
    if isinstance(command, Note):
        return [Noted(command.text)]
    return [Opened(**{{f.name: getattr(command, f.name) for f in fields(Opened)}})]

def evolve(box, event: Opened | Noted):
    if isinstance(event, Noted):
        return replace(box, notes=box.notes + 1)
    return replace(box, opened=repr(asdict(event)))

box = Aggregate(
    name="{aggregate}", key="box_id", initial=Box(), decide=decide, evolve=evolve, table="boxes"
)
boxes = Domain("boxes", (box,), {upcasts})
"""
THEN = {"name": "str", "grams": "int", "price": "float"}


def write_module(
    folder: Path,
    fields: Mapping[str, str] = THEN,
    version: str = "",
    noted: str = "@event",
    upcasts: str = "",
    aggregate: str = "box",
) -> None:
    declared = "\n    ".join(f"{name}: {type_}" for name, type_ in fields.items())
    text = MODULE.format(
        fields=declared, version=version, noted=noted, upcasts=upcasts, aggregate=aggregate
    )
    (folder / "boxes.py").write_text(text)


def rebuilt(_: str, settings: Settings) -> object:
    return rebuild(settings, [], everything=True, seen=lambda *_: None)


def seen_as_of(_: str, settings: Settings) -> object:
    return as_of(datetime(2100, 1, 1), settings=settings)


def content(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data directory of a pipeline that has run, and was stopped."""
    folder = tmp_path_factory.mktemp("lived")
    write_module(folder)
    server = EmbeddedServer(folder / "own")
    server.keep_running()
    settings = Settings(
        data=folder / "data", redis_url=server.url, domain="boxes:boxes", export_interval_s=0
    )
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        pipeline = Up(settings)
        try:
            lines = [
                {"type": "Open", "command_id": "1", "box_id": "a"}
                | {"name": "tea", "grams": 250, "price": 4.5},
                {"type": "Note", "command_id": "2", "box_id": "a", "text": "green"},
            ]
            pipeline.ready().close()
            sent = foldlog(settings, "send", "-", stdin="\n".join(map(json.dumps, lines)))
            assert sent.returncode == 0, sent.stderr
            pipeline.settle()
            assert pipeline.stop() == 0, pipeline.errors()
        finally:
            pipeline.kill()
            server.stop()
    return folder / "data"


@pytest.fixture
def boxes(lived: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A copy of it, and a Redis that is empty: all commands are in the log."""
    shutil.copytree(lived, settings.data)
    monkeypatch.chdir(settings.data.parent)
    return settings.model_copy(update={"domain": "boxes:boxes"})


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"fields": {"label": "str", "grams": "int", "price": "float"}}, "name is gone, label is"),
        ({"fields": {**THEN, "name": "int"}}, "name was str and is int"),
        ({"fields": {**THEN, "grams": "float"}}, "grams was int and is float"),
        ({"fields": {**THEN, "price": "int"}}, "price was float and is int"),
        ({"fields": {**THEN, "lid": "bool"}}, "lid is new without a default"),
        (
            {"noted": '@event(name="Remarked")'},
            "the log holds Noted events, and the domain declares none of that",
        ),
    ],
)
def test_a_start_after_a_change_without_a_version_is_refused_and_writes_nothing(
    boxes: Settings, changes: dict[str, Any], told: str
) -> None:
    write_module(boxes.data.parent, **changes)
    before = content(boxes.events)
    said = one_line_of(foldlog(boxes, "up"))
    assert told in said
    assert "Opened" in said or "Noted" in said
    assert content(boxes.events) == before


@pytest.mark.parametrize(
    "words",
    [
        ["up"],
        ["work"],
        ["read"],
        ["rebuild", "--all"],
        ["history", "a"],
        ["query", "FROM boxes", "--as-of", "2100-01-01"],
        ["subscribe", "--no-follow"],
        ["verify"],
    ],
    ids=itemgetter(0),
)
def test_a_renamed_aggregate_is_told_by_whatever_works_on_the_log(
    boxes: Settings, words: list[str]
) -> None:
    write_module(boxes.data.parent, aggregate="crate")
    before = content(boxes.events)
    ran = foldlog(boxes, *words)
    told = "happens to crate in the domain, and to box in the log; an aggregate keeps its name"
    assert ran.returncode == 1
    assert told in (ran.stdout if words == ["verify"] else one_line_of(ran))
    assert content(boxes.events) == before


@pytest.mark.parametrize("read", [history, rebuilt, seen_as_of])
def test_whoever_reads_the_log_is_told_as_well(
    boxes: Settings, monkeypatch: pytest.MonkeyPatch, read: Callable[[str, Settings], Any]
) -> None:
    write_module(boxes.data.parent, {**THEN, "grams": "float"})
    monkeypatch.syspath_prepend(boxes.data.parent)
    monkeypatch.delitem(sys.modules, "boxes", raising=False)
    with pytest.raises(LogMismatch, match="grams was int and is float"):
        read("a", boxes)
    (wrong,) = verify(boxes, lambda *_: None).wrong
    assert "grams was int and is float" in wrong


def test_with_what_the_error_says_it_starts_and_everything_is_right(
    boxes: Settings, up: Callable[..., Up]
) -> None:
    folder = boxes.data.parent
    write_module(folder)
    contract = folder / "events.json"
    contract.write_text(foldlog(boxes, "schema", "events").stdout)
    new = {"label": "str", "grams": "float", "price": "float", "lid": "str | None = None"}
    write_module(folder, new)
    refused = one_line_of(foldlog(boxes, "up"))
    in_ci = foldlog(boxes, "schema", "--check", str(contract))
    upcasts = refused[refused.index("upcasts=") :].strip()
    assert in_ci.returncode == 1
    assert upcasts in in_ci.stdout

    mended = {"label": "str", "grams_float": "float", "price": "float", "lid": "str | None = None"}
    write_module(folder, mended, version="schema_version: ClassVar[int] = 2", upcasts=upcasts)
    assert "compatible" in foldlog(boxes, "schema", "--check", str(contract)).stdout
    pipeline = up(boxes)
    pipeline.ready().close()
    line = {"type": "Open", "command_id": "3", "box_id": "b"}
    line |= {"label": "mate", "grams_float": 0.5, "price": 1, "lid": "red"}
    assert foldlog(boxes, "send", "-", stdin=json.dumps(line)).returncode == 0
    pipeline.settle()
    assert pipeline.stop() == 0, pipeline.errors()

    was = {"label": "tea", "grams_float": 250.0, "price": 4.5, "lid": None}
    now = {"label": "mate", "grams_float": 0.5, "price": 1.0, "lid": "red"}
    assert foldlog(boxes, "rebuild", "--all").returncode == 0
    with duckdb.connect(str(boxes.published), read_only=True) as db:
        rows = db.execute("SELECT box_id, opened, notes FROM boxes ORDER BY box_id").fetchall()
    assert rows == [("a", repr(was), 1), ("b", repr(now), 0)]
    assert "all is well" in foldlog(boxes, "verify").stdout
    life = foldlog(boxes, "history", "a", "--format", "json").stdout.splitlines()
    assert [json.loads(line)["event"] for line in life] == [was, {"text": "green"}]
