"""Wherever it runs, the same rows: live, rebuilt, as of a moment, and as `foldlog query` prints."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import pytest
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.operate.as_of import as_of
from pipeline.read.rebuild import rebuild
from pipeline.settings import Settings
from projections import connect
from tests.domains.zones import zones
from tests.oracle import partition_of
from tests.running import InProcess, entry

PAGE = Path(__file__).parent.parent / "docs" / "howto" / "time-zones.md"
MODELS = ("carts", "berlin_days", "utc_days")
FIRST = datetime(2017, 3, 25, 20, 30, tzinfo=UTC)  # in the night after, Berlin's clocks change


def commands() -> list[dict[str, Any]]:
    """An hour and a half apart, and each with an offset of its own."""
    found = []
    for number in range(40):
        moment = FIRST + number * timedelta(minutes=90)
        zone = ZoneInfo(("Asia/Tokyo", "UTC", "America/New_York")[number % 3])
        found.append(
            {
                "type": "AddProduct",
                "command_id": str(number),
                "cart_id": str(number % 5),
                "product_id": "m",
                "quantity": number + 1,
                "unit_price_cents": 5,
                "occurred_at": moment.astimezone(zone).isoformat(),
            }
        )
    return found


def seen(folder: Path) -> dict[str, Any]:
    """What every way of asking answers, in the zone of this process."""
    settings = Settings(data=folder, domain="tests.domains.zones:zones")
    pipeline = InProcess(folder, zones, partitions=2)
    for number, command in enumerate(commands()):
        partition = partition_of(command["cart_id"], 2)
        pipeline.flush([pipeline.decide(partition, [entry(number, command)])])
    pipeline.publish()
    pipeline.writer.close()
    answers = {"live": shown(settings)}
    rebuild(settings, [], everything=True, seen=lambda *_: None)
    answers["rebuilt"] = shown(settings)
    with as_of(datetime(2100, 1, 1), settings=settings) as db:
        answers["as of"] = {name: rows(db, name) for name in MODELS}
    asked = ["query", "--format", "csv", "--data", str(folder), "--domain", settings.domain]
    for name in MODELS:
        printed = CliRunner().invoke(app, [*asked, f"FROM {name} ORDER BY ALL"])
        assert printed.exit_code == 0, printed
        answers[f"query {name}"] = printed.stdout
    return answers


def shown(settings: Settings) -> dict[str, Any]:
    with connect(settings.published, sandbox=False) as db:
        return {name: rows(db.newest, name) for name in MODELS}


def rows(db: duckdb.DuckDBPyConnection, name: str) -> list[list[str]]:
    found = db.execute(f"FROM {name} ORDER BY ALL").fetchall()
    return [[str(value) for value in row] for row in found]


def answers_in(zone: str, language: str, folder: Path) -> dict[str, Any]:
    """`seen`, in a process of its own: DuckDB looks at its zone once in a process."""
    ran = subprocess.run(
        [sys.executable, "-m", "tests.test_time_zones", str(folder)],
        cwd=PAGE.parents[2],
        env={**os.environ, "TZ": zone, "LANG": language, "LC_ALL": language},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    answers: dict[str, Any] = json.loads(ran.stdout)
    return answers


@pytest.mark.parametrize(
    ("zone", "language"), [("Asia/Tokyo", "th_TH.UTF-8"), ("America/New_York", "C.UTF-8")]
)
def test_rows_do_not_depend_on_the_zone_of_the_machine(
    tmp_path: Path, zone: str, language: str
) -> None:
    answers = answers_in(zone, language, tmp_path)
    berlin: Counter[str] = Counter()
    utc: Counter[str] = Counter()
    for command in commands():
        moment = datetime.fromisoformat(command["occurred_at"])
        berlin[str(moment.astimezone(ZoneInfo("Europe/Berlin")).date())] += command["quantity"]
        utc[str(moment.astimezone(UTC).date())] += command["quantity"]
    for way in ("live", "rebuilt", "as of"):
        assert {day: int(units) for day, units in answers[way]["berlin_days"]} == berlin
        found: Counter[str] = Counter()
        for day, shown_as, units, instant, _ in answers[way]["utc_days"]:
            found[day] += int(units)
            assert datetime.fromisoformat(instant).astimezone(UTC).strftime("%A %H:%M") == shown_as
        assert found == utc
        first = min(row[-2] for row in answers[way]["carts"])
        assert datetime.fromisoformat(first) == FIRST.replace(tzinfo=None)
        assert answers[way] == answers["live"]
    printed = [line.split(",") for line in answers["query berlin_days"].split()[1:]]
    assert printed == answers["live"]["berlin_days"]
    assert FIRST.strftime("%Y-%m-%d %H:%M:%S+00") in answers["query utc_days"]
    assert FIRST.strftime("%Y-%m-%d %H:%M:%S") in answers["query carts"]


def test_the_recipe_of_the_page_is_what_is_tested() -> None:
    (sql,) = re.findall(r"```sql\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert sql == (zones.read_models or Path()).joinpath("berlin_days.sql").read_text()


if __name__ == "__main__":
    print(json.dumps(seen(Path(sys.argv[1]))))
