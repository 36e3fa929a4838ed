"""Names that others hold, on the wire and in the log: a class' own, or the one that it keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytest

from ingest import Aggregate, Command, Domain, Identifier, event
from ingest.command import command_type
from ingest.contract import commands_schema, events_schema
from ingest.envelope import UNREADABLE
from ingest.errors import LogMismatch
from tests.contracts import validator
from tests.running import InProcess, read


class Level(NamedTuple):
    litres: int = 0


class Fill(Command):
    tank: Identifier
    litres: int


class FillUp(Command):
    """`Fill`, with a better name."""

    type: Literal["Fill"] = "Fill"
    tank: Identifier
    litres: int


class FillSlowly(FillUp):
    """It keeps no name: that is the other's."""


@event
class Filled:
    litres: int


@event(name="Filled")
class CameIn:
    litres: int


@event
class Renamed:
    litres: int


def fill(level: Level, command: Fill) -> list[Filled]:
    return [Filled(command.litres)]


def filled(level: Level, event: Filled) -> Level:
    return Level(level.litres + event.litres)


def fill_up(level: Level, command: FillUp | FillSlowly) -> list[CameIn]:
    return [CameIn(command.litres)]


def came_in(level: Level, event: CameIn) -> Level:
    return Level(level.litres + event.litres)


def renamed(level: Level, event: Renamed) -> Level:
    return level


def domain_of(decide: Any, evolve: Any) -> Domain:
    tank = Aggregate(
        name="tank", key="tank", initial=Level(), decide=decide, evolve=evolve, table="tanks"
    )
    return Domain("tanks", (tank,))


BEFORE, AFTER = domain_of(fill, filled), domain_of(fill_up, came_in)


def filling(number: int, litres: int, **other: Any) -> dict[str, Any]:
    return {"type": "Fill", "command_id": str(number), "tank": "a", "litres": litres, **other}


def test_a_command_has_its_class_name_on_the_wire_or_the_one_that_it_keeps() -> None:
    assert [command_type(c) for c in (Fill, FillUp, FillSlowly)] == ["Fill", "Fill", "FillSlowly"]
    assert Fill(command_id="1", tank="a", litres=1).model_dump(mode="json")["type"] == "Fill"
    assert FillUp(command_id="1", tank="a", litres=1).model_dump(mode="json")["type"] == "Fill"
    made = FillSlowly(command_id="1", tank="a", litres=1)
    assert made.model_dump(mode="json")["type"] == "FillSlowly"


@pytest.mark.parametrize("domain", [BEFORE, AFTER], ids=["own", "kept"])
def test_who_sends_an_old_name_is_understood_and_another_name_is_not(
    tmp_path: Path, domain: Domain
) -> None:
    right, wrong = filling(1, 5), filling(2, 5, type="FillUp")
    pipeline = InProcess(tmp_path, domain, partitions=1)
    rows = pipeline.run(0, right, wrong)
    pipeline.writer.close()
    assert [row["event_type"] for row in rows] == ["Filled", UNREADABLE]
    commands = validator(commands_schema(domain))
    assert (commands.is_valid(right), commands.is_valid(wrong)) == (True, False)
    (event_type,) = {row["event_type"] for row in rows if row["version"]}
    assert event_type in events_schema(domain)["$defs"]


def test_a_log_is_read_by_classes_of_other_names_that_keep_the_names_in_it(tmp_path: Path) -> None:
    pipeline = InProcess(tmp_path, BEFORE, partitions=1)
    pipeline.run(0, filling(1, 5))
    pipeline.writer.close()
    pipeline = InProcess(tmp_path, AFTER, partitions=1)
    assert pipeline.partitions[0].aggregates.get(("tank", "a")) == (Level(5), 1)
    slowly = filling(2, 2, type="FillSlowly")
    assert [row["event_type"] for row in pipeline.run(0, slowly)] == ["Filled"]
    ((_, litres, version, *_),) = read(pipeline.publish(), "tanks")["tanks"]
    assert (litres, version) == (7, 2)
    pipeline.writer.close()
    with pytest.raises(LogMismatch, match="holds Filled events, and the domain declares none"):
        InProcess(tmp_path, domain_of(fill_up, renamed), partitions=1)
