"""What an operator sees of a real pipeline: metrics, state, log lines."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable

import duckdb
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from ingest.producer import Producer
from pipeline.health.status import status
from pipeline.settings import Settings
from tests.running import Up, foldlog, wait_for
from tests.servers import free_port
from tests.shopping import shopping

SECRET = "hidden-4711"


def page(settings: Settings, offset: int) -> str:
    """What one program serves: the read side at the port itself, the worker one above."""
    address = f"http://127.0.0.1:{settings.metrics_port + offset}/metrics"

    def answers() -> bool:
        with contextlib.suppress(OSError), urllib.request.urlopen(address):
            return True
        return False

    wait_for(answers, f"{address} to answer")
    with urllib.request.urlopen(address) as answer:
        return str(answer.read().decode())


def parsed(settings: Settings) -> list[Metric]:
    return [f for offset in (0, 1) for f in text_string_to_metric_families(page(settings, offset))]


def scraped(settings: Settings) -> list[Sample]:
    return [sample for family in parsed(settings) for sample in family.samples]


def test_metrics_count_what_was_sent_and_nothing_said_holds_a_payload(
    settings: Settings, up: Callable[..., Up]
) -> None:
    settings = settings.model_copy(update={"metrics_port": free_port(), "log_format": "json"})
    pipeline = up(settings)
    producer = pipeline.ready()
    producer.send_many(shopping(500))
    producer.send_many([{"type": "CheckOut", "cart_id": SECRET, "command_id": SECRET}])
    pipeline.settle()
    text = page(settings, 0) + page(settings, 1)
    samples = scraped(settings)
    commands = sum(s.value for s in samples if s.name == "foldlog_commands_total")
    outcomes = sum(s.value for s in samples if s.name == "foldlog_outcomes_total")
    assert commands == outcomes == 501
    assert "foldlog_freshness_seconds" in text
    state = json.loads(foldlog(settings, "status", "--json").stdout)
    rows = sum(s.value for s in samples if s.name == "foldlog_log_rows")
    assert rows == sum(p["position"] for p in state["partitions"])
    assert state["healthy"]
    assert foldlog(settings, "status", "--check").returncode == 0
    assert pipeline.stop() == 0
    said = pipeline.errors()
    assert [json.loads(line)["level"] for line in said.splitlines()]
    assert SECRET not in said + text
    stopped = foldlog(settings, "status", "--check")
    assert stopped.returncode == 1
    assert "no pipeline runs" in stopped.stderr
    producer.close()


def test_outcomes_are_counted_as_the_log_has_them(
    settings: Settings, up: Callable[..., Up]
) -> None:
    settings = settings.model_copy(update={"metrics_port": free_port()})
    pipeline = up(settings)
    with pipeline.ready() as producer:
        sent = shopping(500)
        producer.send_many(sent)
        again = {"type": "CheckOut", "cart_id": "nobody's", "command_id": "twice"}
        producer.send_many([again, again, again])
        producer.send_many(
            [{"type": "CheckOut", "cart_id": "x", "command_id": SECRET, "nonsense": 1}]
        )
    pipeline.settle()
    counted = {
        sample.labels["kind"]: sample.value
        for sample in scraped(settings)
        if sample.name == "foldlog_outcomes_total"
    }
    with duckdb.connect(str(settings.published), read_only=True) as db:
        held = dict(db.execute("SELECT outcome, count(*) FROM outcomes GROUP BY ALL").fetchall())
    assert held == {kind: counted[kind] for kind in held}
    assert counted["duplicate"] == len(sent) + 4 - sum(held.values()) >= 2


def test_names_and_units_follow_the_conventions(settings: Settings, up: Callable[..., Up]) -> None:
    settings = settings.model_copy(update={"metrics_port": free_port()})
    pipeline = up(settings)
    pipeline.ready().close()
    pipeline.settle()
    families = [f for f in parsed(settings) if f.name.startswith("foldlog_")]
    assert {f.name for f in families} >= {"foldlog_commands", "foldlog_commit_seconds"}
    for family in families:
        assert family.documentation.endswith("."), family.name
        if family.type == "counter":
            assert all(s.name.endswith(("_total", "_created")) for s in family.samples)
        assert not family.name.endswith(("_ms", "_mb", "_kb"))


def test_a_payload_is_in_no_line_where_the_domains_code_fails_on_it(
    settings: Settings, up: Callable[..., Up]
) -> None:
    settings = settings.model_copy(
        update={"domain": "tests.domains.failing:failing", "partitions": 1}
    )
    pipeline = up(settings)
    with pipeline.ready() as producer:
        producer.send_many([{"type": "Fail", "id": "7", "text": SECRET}])
    wait_for(settings.errors.exists, "an error")
    wait_for(lambda: "is halted" in settings.errors.read_text(), "the partition to be halted")
    assert pipeline.stop() == 0
    said = pipeline.errors()
    assert "ValueError" in said
    assert "nothing is lost" in said
    assert SECRET not in said + settings.errors.read_text()


def test_health_is_told_by_the_exit_code(settings: Settings, up: Callable[..., Up]) -> None:
    pipeline = up(settings)
    with pipeline.ready() as producer:
        producer.send_many(shopping(200))
    pipeline.settle()
    assert foldlog(settings, "status", "--check", "--lag-max", "0").returncode == 0
    (worker,) = pipeline.workers()
    worker.suspend()
    with Producer(settings.reachable_redis) as producer:
        producer.send_many(shopping(10, seed=2))
    behind = foldlog(settings, "status", "--check", "--lag-max", "0")
    assert behind.returncode == 1
    assert "lag" in behind.stderr
    worker.resume()
    wait_for(
        lambda: foldlog(settings, "status", "--check", "--lag-max", "0").returncode == 0, "health"
    )
    away = foldlog(settings, "status", "--check", "--redis", "redis://127.0.0.1:1")
    assert away.returncode == 1
    assert "Redis at redis://127.0.0.1:1 does not answer" in away.stderr


def test_what_is_watched_changes_and_ctrl_c_is_polite(
    settings: Settings, up: Callable[..., Up]
) -> None:
    pipeline = up(settings)
    producer = pipeline.ready()
    leader, follower = pty.openpty()
    words = [sys.executable, "-m", "pipeline.cli", "status", "--watch", "--every", "0.2"]
    environment = {**os.environ, **settings.as_environment(), "COLUMNS": "80", "TERM": "xterm"}
    watching = subprocess.Popen(
        words, stdin=follower, stdout=follower, stderr=follower, env=environment
    )
    os.close(follower)
    seen: list[str] = []
    reader = threading.Thread(target=lambda: _read(leader, seen), daemon=True)
    reader.start()
    try:
        wait_for(lambda: "partitions 0, 1, 2, 3" in "".join(seen), "the first screen")
        producer.send_many(shopping(300))
        pipeline.settle()
        rows = sum(p.position for p in status(settings).partitions)
        wait_for(lambda: f"{rows:,} rows" in "".join(seen), "the number of rows")
        watching.send_signal(signal.SIGINT)
        assert watching.wait(20) == 0
    finally:
        watching.kill()
        watching.wait()
        producer.close()
    reader.join(10)
    os.close(leader)
    assert "Traceback" not in "".join(seen)


def _read(leader: int, seen: list[str]) -> None:
    with contextlib.suppress(OSError):  # the other end is closed
        while text := os.read(leader, 65536):
            seen.append(text.decode(errors="replace"))
