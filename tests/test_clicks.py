"""A domain unlike a cart, with every type, through real processes: as plain Python computes it."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import duckdb
import pandas as pd
import polars as pl

from ingest.contract import commands_schema, events_schema
from pipeline.health.status import status
from pipeline.settings import Settings
from tests.contracts import validator
from tests.domains.clicks import clicks
from tests.running import Up, foldlog, wait_for

DAY = datetime(2026, 3, 28, 18, tzinfo=UTC)


def sent_as(moment: datetime, rnd: random.Random) -> str:
    """A moment as some browser writes it: in a zone of its own."""
    return moment.astimezone(timezone(timedelta(hours=rnd.choice([-10, 0, 2])))).isoformat()


def generated(count: int, seed: int = 5) -> list[dict[str, Any]]:
    """Seeded commands of many sessions; some are late, some against the rules, some no commands."""
    rnd = random.Random(seed)
    clock: dict[str, datetime] = {}
    commands: list[dict[str, Any]] = []
    for number in range(count):
        session = f"s{rnd.randrange(count // 12)}"
        common = {"command_id": f"c{number}", "session_id": session}
        now = clock.setdefault(session, DAY + timedelta(seconds=rnd.randrange(30_000)))
        kind = rnd.choices(["Begin", "Click", "End"], [2, 9, 1])[0]
        if kind == "Begin":
            places = [None, place(now, rnd), place(now, rnd)]
            commands.append({
                "type": "Begin", **common, "visitor": str(UUID(int=rnd.randrange(count // 20))),
                "device": rnd.choice(["phone", "desktop"]), "channel": rnd.choice(["search", 2]),
                "begun_at": sent_as(now, rnd), "wall_clock": now.replace(tzinfo=None).isoformat(),
                "place": rnd.choice(places), "tags": rnd.sample(["a", "b", "ü"], rnd.randrange(3)),
                "token": rnd.choice(["", "t\0"]),
            })  # fmt: skip
        elif kind == "Click":
            now += timedelta(seconds=rnd.choice([-5, 20, 200, 900, 2000]))
            clock[session] = max(now, clock[session])
            when = rnd.choice([sent_as(now, rnd)] * 40 + [now.replace(tzinfo=None).isoformat()])
            commands.append({
                "type": "Click", **common, "page": f"/{rnd.randrange(9)}", "clicked_at": when,
                "local": now.time().isoformat(), "dwell": f"PT{rnd.randrange(9_999) / 1000}S",
                "spent": rnd.choice(["0.00", "1.5", "12.34", "0.001"]),
                "interest": rnd.choice([None, 1, 5]),
                "scores": [rnd.choice([1, 2.5, -3]) for _ in range(rnd.randrange(3))],
                "trail": [place(now, rnd) for _ in range(rnd.randrange(2))],
            })  # fmt: skip
        else:
            commands.append({
                "type": "End", **common, "ending": rnd.choice(["left", "bought"]),
                "on": now.date().isoformat(), "happy": rnd.random() < 0.5,
            })  # fmt: skip
        if rnd.random() < 0.02:
            commands.append(rnd.choice(commands[-20:]))
    return commands


def place(now: datetime, rnd: random.Random) -> dict[str, Any]:
    given = {"country": rnd.choice(["DE", "FR"]), "latitude": rnd.randrange(40, 60)}
    more = {"device": "phone"} if rnd.random() < 0.5 else {}
    return {**given, "seen_at": sent_as(now, rnd), **more}


# --- the oracle: shares no code with the product


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC).replace(tzinfo=None)


def placed(given: dict[str, Any] | None) -> dict[str, Any] | None:
    return given and {
        "country": given["country"], "latitude": float(given["latitude"]),
        "seen_at": utc(given["seen_at"]), "device": given.get("device", "desktop"),
    }  # fmt: skip


class Expected:
    """Outcomes, and the rows of all read models."""

    def __init__(self, commands: list[dict[str, Any]]) -> None:
        self.outcomes: dict[str, str] = {}
        self.sessions: dict[str, dict[str, Any]] = {}
        self.pages: dict[tuple[str, date], list[dict[str, Any]]] = defaultdict(list)
        self.begun: list[dict[str, Any]] = []
        for command in commands:
            if command["command_id"] not in self.outcomes:
                self.outcomes[command["command_id"]] = self._outcome(command)

    def _outcome(self, command: dict[str, Any]) -> str:
        state = self.sessions.get(command["session_id"])
        if command["type"] == "Click":
            wrong = []
            if datetime.fromisoformat(command["clicked_at"]).tzinfo is None:
                wrong.append("clicked_at: Input should have timezone info")
            if command["spent"] == "0.001":
                wrong.append("spent: Decimal input should have no more than 2 decimal places")
            if wrong:
                return "; ".join(wrong)
        if command["type"] == "Begin":
            if state:
                return "the session has begun"
            self.begun.append(command)
            self.sessions[command["session_id"]] = {
                "status": "open", "visitor": command["visitor"], "device": command["device"],
                "channel": {"search": "SEARCH", 2: "MAIL"}[command["channel"]],
                "moved_at": utc(command["begun_at"]),
                "wall_clock": datetime.fromisoformat(command["wall_clock"]),
                "place": placed(command["place"]), "tags": command["tags"],
                "token": command["token"].encode(), "local": None, "dwell": 0,
                "spent": Decimal(0), "interest": 1, "best": 0.0, "trail": [], "ended_on": None,
                "happy": False, "pages": 0, "version": 1,
            }  # fmt: skip
            return "accepted"
        if not state or state["status"] == "ended":
            return "the session is not open"
        if command["type"] == "End":
            state |= {"status": "ended", "ended_on": date.fromisoformat(command["on"]),
                      "happy": command["happy"]}  # fmt: skip
        else:
            at = utc(command["clicked_at"])
            if at < state["moved_at"]:
                return "the click comes late"
            if at - state["moved_at"] > timedelta(minutes=30):
                return "the session is asleep"
            if state["moved_at"].hour == 23 and state["device"] == "phone":
                return "phones sleep at 23 h UTC"
            if state["channel"] == "MAIL" and state["interest"] == 5:
                return "who comes by mail and is interested has seen enough"
            dwell = round(float(command["dwell"][2:-1]) * 1_000_000)
            self.pages[command["page"], at.date()].append({**command, "dwell": dwell, "at": at})
            state |= {
                "moved_at": at, "local": time.fromisoformat(command["local"]),
                "dwell": state["dwell"] + dwell, "pages": state["pages"] + 1,
                "spent": state["spent"] + Decimal(command["spent"]),
                "interest": command["interest"] or state["interest"],
                "best": max([state["best"], *command["scores"]]),
                "trail": [placed(p) for p in command["trail"]],
            }  # fmt: skip
        state["version"] += 1
        return "accepted"


def check(settings: Settings, commands: list[dict[str, Any]]) -> Expected:
    expected = Expected(commands)
    with duckdb.connect(str(settings.published), read_only=True) as db:
        sessions = "SELECT * EXCLUDE (session_id, first_at, last_at), session_id FROM sessions"
        shown = db.execute(sessions)
        names = [column[0] for column in shown.description]
        found = {row[-1]: dict(zip(names[:-1], row[:-1], strict=True)) for row in shown.fetchall()}
        outcomes = "SELECT command_id, CASE outcome WHEN 'accepted' THEN outcome ELSE reason END"
        said = dict(db.execute(f"{outcomes} FROM outcomes").fetchall())
        pages = "SELECT * EXCLUDE (last_scores) FROM pages_daily"
        by_day = {row[:2]: row[2:] for row in db.execute(pages).fetchall()}
        visits = {row[:2]: row[2:] for row in db.execute("FROM visits").fetchall()}
        spent = db.execute("SELECT visitor, sessions, spent FROM big_spenders").fetchall()
    assert said == expected.outcomes
    assert found == expected.sessions
    assert by_day == {key: page_row(clicked) for key, clicked in expected.pages.items()}
    for (device, channel), row in visits.items():
        raw = "search" if channel == "SEARCH" else 2
        begun = [b for b in expected.begun if (b["device"], b["channel"]) == (device, raw)]
        north = max((float(b["place"]["latitude"]) for b in begun if b["place"]), default=None)
        with_place = sum(b["place"] is not None for b in begun)
        assert row == (len(begun), with_place, min(utc(b["begun_at"]) for b in begun), north)
    by_visitor: dict[str, list[Any]] = defaultdict(lambda: [0, Decimal(0)])
    for state in expected.sessions.values():
        by_visitor[state["visitor"]][0] += 1
        by_visitor[state["visitor"]][1] += state["spent"]
    assert {row[0]: [*row[1:]] for row in spent} == by_visitor
    return expected


def page_row(clicked: list[dict[str, Any]]) -> tuple[Any, ...]:
    return (
        len(clicked), sum(Decimal(c["spent"]) for c in clicked), sum(c["dwell"] for c in clicked),
        max(c["at"] for c in clicked), min(time.fromisoformat(c["local"]) for c in clicked),
        max((c["interest"] for c in clicked if c["interest"]), default=None),
    )  # fmt: skip


def test_every_type_comes_through_kills_restarts_and_rebuilds_as_it_was_sent(
    settings: Settings, up: Callable[..., Up]
) -> None:
    settings = settings.model_copy(
        update={"domain": "tests.domains.clicks:clicks", "batch_max": 20, "snapshot_rows": 150}
    )
    commands = generated(1_500)
    pipeline = up(settings)
    producer = pipeline.ready()
    producer.send_many(commands[:1_000])
    wait_for(lambda: any(settings.events.glob("*/*.parquet")), "the first commit")
    pipeline.kill()
    half_way = sum(p.position for p in status(settings).partitions)
    producer.send_many(commands[1_000:])
    pipeline.start()
    pipeline.settle()
    expected = check(settings, commands)
    assert half_way < len(expected.outcomes), "it was killed too late"
    assert len({*expected.outcomes.values()}) == 10, "each rule was met"

    assert foldlog(settings, "rebuild", "--all").returncode == 0
    assert pipeline.stop() == 0, pipeline.errors()
    check(settings, commands)
    verified = foldlog(settings, "verify")
    assert verified.returncode == 0, verified.stdout
    (settings.data / "snapshots").rename(settings.data / "away")
    pipeline.start()
    pipeline.settle()
    producer.send_many(commands)  # nothing of it is new
    pipeline.settle()
    check(settings, commands)
    producer.close()
    assert pipeline.stop() == 0
    assert_asked_and_exported(settings, expected)


def assert_asked_and_exported(settings: Settings, expected: Expected) -> None:
    """What is asked for in other ways says the same."""
    asked = "SELECT session_id, spent::VARCHAR AS spent FROM sessions"
    now = json.loads(foldlog(settings, "query", asked, "--format", "json").stdout)
    past = foldlog(settings, "query", asked, "--as-of", "2999-01-01", "--format", "json")
    assert sorted(map(str, json.loads(past.stdout))) == sorted(map(str, now))
    rows = json.loads(foldlog(settings, "query", "FROM events", "--format", "json").stdout)
    events = validator(events_schema(clicks))
    for row in rows:
        events.validate(row)
    assert len(rows) == sum(state["version"] for state in expected.sessions.values())
    assert not events.is_valid({**rows[0], "dwell": "PT1S", "begun_at": 5})
    session, state = max(expected.sessions.items(), key=lambda found: found[1]["version"])
    history = foldlog(settings, "history", session, "--format", "json").stdout.splitlines()
    assert len(history) == state["version"]
    assert json.loads(history[-1])["state"]["visitor"] == state["visitor"]
    assert foldlog(settings, "export").returncode == 0
    path = settings.exported / "sessions.parquet"
    total = sum(state["spent"] for state in expected.sessions.values())
    assert pd.read_parquet(path)["spent"].sum() == total
    polars = pl.read_parquet(path)
    assert polars["spent"].sum() == total
    assert {*polars["visitor"]} == {state["visitor"] for state in expected.sessions.values()}


def test_the_contract_of_commands_allows_what_is_generated() -> None:
    allowed = validator(commands_schema(clicks))
    for command in generated(300):
        when = datetime.fromisoformat(command.get("clicked_at", "2026-01-01T00:00:00Z"))
        assert allowed.is_valid(command) is (when.tzinfo is not None), command


def test_a_part_of_a_command_and_a_column_of_the_same_type_are_described_apart() -> None:
    place = commands_schema(clicks)["$defs"]["Place"]["properties"]["seen_at"]
    column = events_schema(clicks)["$defs"]["PlaceColumn"]["properties"]["seen_at"]
    assert place["format"] == "date-time"
    assert "format" not in column
