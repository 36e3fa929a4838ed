"""Every step of a commit is a place to die, and no death loses or doubles anything."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ingest import crash
from ingest.client import connect
from ingest.keys import partitions_key
from ingest.producer import Producer
from pipeline.health.status import status
from pipeline.settings import Settings
from tests.processes import Program
from tests.running import DEADLINE_S, Up, foldlog, wait_for
from tests.shopping import check, shopping

ROOT = Path(__file__).parent.parent
MODULES = [
    path.relative_to(ROOT).as_posix()
    for room in ("ingest", "projections", "pipeline")
    for path in sorted((ROOT / room).rglob("*.py"))
]
NAMED = re.compile(r'crash\.point\("([\w.]+)"\)')
ALL = sorted({name for path in MODULES for name in NAMED.findall((ROOT / path).read_text())})

ELSEWHERE = (
    "append",  # test_log
    "claim",  # test_server
    "compact",  # test_compaction
    "cut",  # test_torn_backups
    "dataset",  # test_export
    "event_stream",  # test_event_stream
    "export",  # test_export
    "follow",  # test_orders_survive
    "hand_over",  # test_rebuild
    "move",  # test_strays
    "rebuild",  # test_rebuild
    "replace",  # test_compaction
)
"""What the names of points begin with at which no dataflow comes by; each file dies at its own."""

POINTS = [name for name in ALL if not name.startswith(ELSEWHERE)]

STEPS = re.compile(
    r"^(os\.(fsync|link|symlink|replace|rename|renames|unlink|remove|truncate|ftruncate|write|pwrite)\("
    r"|shutil\.\w+\(|(durable\.)?fsync_folder\(|file\.flush\(|pipe\.execute\("
    r"|.*\.(unlink|write_text|write_bytes|executescript|commit)\("
    r"|[\w.]*db\.execute\(.(COMMIT|CHECKPOINT)\b"
    r"|with [\w.]*_db:)"
)
"""Statements that leave something behind for the next start; `with` is SQLite's transaction."""

WITHOUT = {
    "ingest/durable.py:_beside": "what is left beside is cleared at the next start",
    "ingest/durable.py:fsync_folder": "is itself such a step",
    "ingest/server.py:_start": "a socket, made anew at each start",
    "ingest/server.py:stop": "a socket, made anew at each start",
    "ingest/server_data.py:claim": "beside; the rename has points",
    "pipeline/extras/bench/delays.py": "figures",
    "pipeline/extras/bench/grown.py": "figures",
    "pipeline/cli/running.py:bench": "figures",
    "pipeline/extras/demo.py:_clear": "the demo's folder, before anything runs",
    "pipeline/log/log.py:clear_unfinished": "removes what is none of the log",
    "pipeline/log/log.py:create": "removes what is none of the log",
    "pipeline/messages.py:shorten": "old errors, for people",
    "pipeline/engine/programs.py": "which programs run: a lock on the file tells, not its content",
    "pipeline/extras/new.py": "files for a person to read, none of which is replaced",
    "pipeline/engine/program.py": "which programs run: a lock on the file tells, not its content",
    "pipeline/replay/snapshot_file.py:_open": "an empty cache",
    "pipeline/replay/snapshot_file.py:discard": "removes a cache",
    "pipeline/operate/up.py:__init__": "which programs are wanted; a lock says when",
    "pipeline/operate/cut.py:_remove_caches": "removes caches, before anything of the log goes",
    "projections/publish.py:_copy": "its caller has points before and after it",
    "projections/connection.py": "a temporary folder of the reader's",
    "projections/kept.py:_link": "removes a cache's file; the link has points",
}
"""File, or file and function → why a kill there leaves nothing that matters."""


def is_point(statement: ast.stmt) -> bool:
    return bool(NAMED.match(ast.unparse(statement).replace("'", '"')))


def steps_without_points(path: str) -> list[str]:
    """The steps in a file that have no crash point right before and right after them."""
    missing = []

    def look(body: list[ast.stmt], place: str) -> None:
        for i, statement in enumerate(body):
            if isinstance(statement, ast.FunctionDef):
                look(statement.body, f"{path}:{statement.name}")
                continue
            step = ast.unparse(statement).splitlines()[0]
            if STEPS.match(step) and not {path, place} & WITHOUT.keys():
                within = isinstance(statement, ast.With)  # SQLite commits when this ends
                before = statement.body[-1:] if within else body[max(0, i - 1) : i]
                around = [*before, *body[i + 1 : i + 2]]
                if len(around) < 2 or not all(map(is_point, around)):
                    missing.append(f"{place}:{statement.lineno}: {step}")
            for block in ("body", "orelse", "finalbody"):
                look(getattr(statement, block, []), place)
            for handler in getattr(statement, "handlers", []):
                look(handler.body, place)

    look(ast.parse((ROOT / path).read_text()).body, path)
    return missing


def test_no_step_is_without_its_crash_points() -> None:
    missing = [step for path in MODULES for step in steps_without_points(path)]
    assert missing == [], "\n".join(missing)


def test_no_step_goes_by_another_name() -> None:
    """`from os import replace` would escape the look at the code."""
    renamed = [
        f"{path}: {ast.unparse(node)}"
        for path in MODULES
        for node in ast.walk(ast.parse((ROOT / path).read_text()))
        if isinstance(node, ast.ImportFrom) and node.module in ("os", "shutil")
    ]
    assert renamed == []


def test_what_is_left_out_is_there_and_the_points_are_found() -> None:
    for place in WITHOUT:
        path, _, function = place.partition(":")
        assert path in MODULES
        assert not function or f"def {function}(" in (ROOT / path).read_text(), place
    assert len(POINTS) >= 35, "fewer places to die than there were"
    assert len(ALL) >= 60, "fewer places to die than there were"


READ_SIDE = ("flush", "publish", "aside", "kept")
"""What the names of points begin with at which only the read side comes by."""

APART = ("aside", "create", "declare", "distrust", "rejoin", "snapshot")
"""What the names of points begin with that are come by once, or for a reason: a life for each."""

TOGETHER = [("commit",), ("read", "respond", "settle", "trim"), ("flush", "kept"), ("publish",)]
"""What the names of points begin with that one pipeline dies at, one after another."""

LIVES = [[point] for point in POINTS if point.startswith(APART)] + [
    [point for point in POINTS if point.startswith(names)] for names in TOGETHER
]

TIMES = {"aside": 1, "distrust": 1, "rejoin": 1, "publish": 2, "declare": 1}
"""Name of points → at which coming by the process dies; else at the third."""

COMMANDS = 1_000
"""Sent before each death: so many that each point is come by often enough."""


def test_each_point_is_in_one_life() -> None:
    assert sorted(point for life in LIVES for point in life) == POINTS


@pytest.fixture
def announced(announced: Settings) -> Settings:
    """In small commits, and published often."""
    return announced.model_copy(update={"batch_max": 50, "publish_interval_ms": 50})


def run_until(settings: Settings, started: Callable[..., Program], point: str) -> int:
    """One process of the side that comes by the point, until it ends; its exit code."""
    first = not settings.published.exists()
    side = "read" if point.startswith(READ_SIDE) else "work"
    if side == "read":
        commit_all(settings, started)
    times = TIMES.get(point.partition(".")[0], 3)
    if point.startswith("publish") and not first:
        times = 1  # what a start finds published it does not publish again
    dying = started(side, settings, environment={crash.VARIABLE: f"{point}:{times}"})
    return dying.wait(DEADLINE_S)


def commit_all(settings: Settings, started: Callable[..., Program]) -> None:
    """Let the write side commit what waits, and end."""
    writing = started("work", settings)
    wait_for(lambda: status(settings).lag == 0, "the commits")
    writing.terminate()
    writing.wait(DEADLINE_S)


def forget(settings: Settings, up: Callable[..., Up], commands: list[dict[str, Any]]) -> None:
    """Half of the commands are handled; Redis forgets, and numbers the others too low."""
    half = len(commands) // 2
    with Producer(settings.reachable_redis) as producer:
        producer.send_many(commands[:half])
        before = up(settings)
        before.settle()
        before.stop()
        with connect(settings.reachable_redis) as client:
            client.flushall()
            client.set(partitions_key("shop"), 4)
            for number, command in enumerate(commands[half:], 1):  # as with a clock set back
                stream, payload = producer._wire.encode(command)[1]
                client.xadd(stream, {"command": payload}, id=f"5-{number}")


@pytest.mark.parametrize("life", LIVES, ids="+".join)
def test_a_process_that_dies_at_this_point_loses_nothing_and_doubles_nothing(
    announced: Settings, up: Callable[..., Up], started: Callable[..., Program], life: list[str]
) -> None:
    settings, data = announced, announced.data
    if life[0].startswith("aside"):
        (data / "writer.duckdb").write_bytes(b"no database" * 1000)
    if life[0].startswith("distrust"):
        (data / "snapshots").mkdir()
        (data / "snapshots").chmod(0o777)
        (data / "snapshots" / "0.sqlite").write_bytes(b"of another user")
    if life[0].startswith("snapshot"):
        settings = settings.model_copy(update={"snapshot_rows": 75, "aggregates_in_memory": 10})

    commands = shopping(COMMANDS * len(life))
    for number, point in enumerate(life):
        if point.startswith("rejoin"):
            forget(settings, up, commands)
        else:
            with Producer(settings.reachable_redis) as producer:
                producer.send_many(commands[number * COMMANDS : (number + 1) * COMMANDS])
        if point.startswith("create"):
            died = foldlog(settings, "up", environment={crash.VARIABLE: point}).returncode
        else:
            died = run_until(settings, started, point)
        assert died == crash.EXIT_CODE, point
    pipeline = up(settings)
    pipeline.settle()
    assert pipeline.stop() == 0, pipeline.errors()
    check(settings, commands)
    assert not list(settings.events.rglob("*.tmp"))
