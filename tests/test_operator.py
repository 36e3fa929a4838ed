"""What an operator sees of a real pipeline: metrics, state, log lines."""

from __future__ import annotations

import json
import socket
import urllib.request
from collections.abc import Callable

from prometheus_client.parser import text_string_to_metric_families

from pipeline.settings import Settings
from tests.running import Up, foldlog
from tests.shopping import shopping

SECRET = "hidden-4711"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def test_metrics_count_what_was_sent_and_nothing_said_holds_a_payload(
    settings: Settings, up: Callable[..., Up]
) -> None:
    settings = settings.model_copy(update={"metrics_port": free_port(), "log_format": "json"})
    pipeline = up(settings)
    producer = pipeline.ready()
    producer.send_many(shopping(2_000))
    producer.send_many([{"type": "CheckOut", "cart_id": SECRET, "command_id": SECRET}])
    pipeline.settle()
    with urllib.request.urlopen(f"http://127.0.0.1:{settings.metrics_port}/metrics") as answer:
        text = answer.read().decode()
    samples = [s for family in text_string_to_metric_families(text) for s in family.samples]
    commands = sum(s.value for s in samples if s.name == "foldlog_commands_total")
    outcomes = sum(s.value for s in samples if s.name == "foldlog_outcomes_total")
    assert commands == outcomes >= 2_001
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
