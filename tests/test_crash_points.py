"""Every step of a commit is a place to die, and no death loses or doubles anything."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ingest import crash
from ingest.client import connect
from ingest.producer import Producer
from ingest.server import EmbeddedServer
from ingest.streams import partitions_key
from pipeline.log import Log
from pipeline.settings import Settings
from pipeline.status import status
from tests.running import DEADLINE_S, Up, foldlog, wait_for
from tests.shopping import check, shopping

ROOT = Path(__file__).parent.parent
MODULES = [p for room in ("ingest", "projections", "pipeline") for p in (ROOT / room).glob("*.py")]
NAMED = re.compile(r'crash\.point\("([\w.]+)"\)')
POINTS = sorted(
    {name for path in MODULES for name in NAMED.findall(path.read_text())}
    # Of other processes; see the tests of each.
    - {"rebuild.to_rename", "rebuild.renamed", "export.to_rename", "export.renamed"}
    - {"compact.to_remove", "compact.removed", "compact.to_fsync_folder", "compact.fsynced"}
    - {"replace.to_rename", "replace.renamed", "replace.to_fsync_folder", "replace.done"}
    - {"trim.to_remove", "trim.removed"}
    - {
        "dataset.to_fsync",
        "dataset.fsynced",
        "dataset.to_rename",
        "dataset.renamed",
        "dataset.done",
    }
    - {"dataset.to_remove", "dataset.removed"}
    - {"compact.to_remove", "compact.removed", "claim.to_rename", "claim.renamed"}
    - {"move.to_send", "move.sent"}
)

STEPS = re.compile(
    r"^(os\.(fsync|link|replace|rename|unlink|truncate)\(|shutil\.\w+\(|(durable\.)?fsync_folder\("
    r"|file\.flush\(|pipe\.execute\(|self\._db\.execute\(.(COMMIT|CHECKPOINT)\b)"
)
"""Statements that leave something behind for the next start."""

WITHOUT = {
    "fsync_folder",  # is itself such a step
    "_clear",  # the demo's folder, before anything runs
    "add",  # the producer's sending: another process, which sends again
}


def steps_without_points(body: list[ast.stmt], where: str) -> list[str]:
    """The steps in these statements that have no crash point right before and right after them."""
    missing = []
    for i, statement in enumerate(body):
        if isinstance(statement, ast.FunctionDef) and statement.name in WITHOUT:
            continue
        for field in ("body", "orelse", "finalbody", "handlers"):
            inner = getattr(statement, field, [])
            missing += steps_without_points(inner, where) if isinstance(inner, list) else []
        if isinstance(statement, ast.Expr) and STEPS.match(ast.unparse(statement)):
            around = [ast.unparse(s) for s in body[max(0, i - 1) : i + 2]]
            if len(around) < 3 or not (NAMED.match(sub(around[0])) and NAMED.match(sub(around[2]))):
                missing.append(f"{where}:{statement.lineno}: {ast.unparse(statement)}")
    return missing


def sub(text: str) -> str:
    return text.replace("'", '"')


def test_no_step_is_without_its_crash_points() -> None:
    missing = []
    for path in MODULES:
        tree = ast.parse(path.read_text())
        missing += steps_without_points(tree.body, f"{path.parent.name}/{path.name}")
    assert missing == []


READ_SIDE = ("flush", "publish", "aside", "kept")
"""What the names of points begin with at which only the read side comes by."""


def run_until(settings: Settings, crash_at: str) -> int:
    """One process of the side that comes by the point, until it ends; its exit code."""
    environment = {**os.environ, **settings.as_environment()}
    side = "read" if crash_at.startswith(READ_SIDE) else "work"
    if side == "read":
        commit_all(environment, settings)
    words = [sys.executable, "-m", f"pipeline.{side}"]
    environment[crash.VARIABLE] = crash_at
    return subprocess.run(words, env=environment, timeout=DEADLINE_S).returncode


def commit_all(environment: dict[str, str], settings: Settings) -> None:
    """Let the write side commit what waits, and end."""
    writing = subprocess.Popen([sys.executable, "-m", "pipeline.work"], env=environment)
    try:
        wait_for(lambda: status(settings).lag == 0, "the commits")
    finally:
        writing.terminate()
        writing.wait()


@pytest.mark.parametrize("point", POINTS)
def test_a_process_that_dies_at_this_point_loses_nothing_and_doubles_nothing(
    settings: Settings, redis_server: EmbeddedServer, up: Callable[..., Up], point: str
) -> None:
    settings = settings.model_copy(update={"batch_max": 200, "publish_interval_ms": 50})
    Log.create(settings.events, partitions=4, domain="cart")
    client = connect(redis_server.url)
    client.set(partitions_key("cart"), 4)
    commands = shopping(4_000)
    with Producer(redis_server.url) as producer:
        if point.startswith("rejoin"):
            producer.send_many(commands[:2_000])
            before = up(settings)
            before.settle()
            before.stop()
            client.flushall()
            client.set(partitions_key("cart"), 4)
            for number, command in enumerate(commands[2_000:], 1):  # as with a clock set back
                stream, payload = producer._wire.encode(command)[1]
                client.xadd(stream, {"command": payload}, id=f"5-{number}")
        else:
            producer.send_many(commands)
    if point.startswith("aside"):
        (settings.data / "writer.duckdb").write_bytes(b"no database" * 1000)
    if point.startswith("distrust"):
        (settings.data / "snapshots").mkdir()
        (settings.data / "snapshots").chmod(0o777)
        (settings.data / "snapshots" / "0.sqlite").write_bytes(b"of another user")
    if point.startswith("snapshot"):
        settings = settings.model_copy(update={"snapshot_rows": 300, "aggregates_in_memory": 40})

    if point.startswith("create"):
        died = foldlog(settings, "up", environment={crash.VARIABLE: point})
        assert died.returncode == crash.EXIT_CODE
    else:
        first_time = {"aside": 1, "distrust": 1, "rejoin": 1, "publish": 2, "declare": 2}
        times = first_time.get(point.partition(".")[0], 3)
        assert run_until(settings, f"{point}:{times}") == crash.EXIT_CODE
    pipeline = up(settings)
    pipeline.settle()
    assert pipeline.stop() == 0, pipeline.errors()
    check(settings, commands)
    assert not list(settings.events.rglob("*.tmp"))
    client.close()
