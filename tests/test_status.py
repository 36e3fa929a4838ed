"""What `foldlog status` says is so, wherever the machine stands."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from pipeline.health.in_redis import InRedis
from pipeline.health.status import status
from pipeline.settings import Settings
from tests.running import DEADLINE_S, InProcess, foldlog

WAITED_S = 100


@pytest.mark.parametrize("time_zone", ["UTC0", "JST-9", "EST5"])
def test_freshness_does_not_depend_on_the_machines_time_zone(
    tmp_path: Path, time_zone: str
) -> None:
    pipeline = InProcess(tmp_path)
    stream_id = b"%d-0" % ((time.time() - WAITED_S) * 1000)
    pipeline.decide(0, [(stream_id, b"unreadable", [])])
    pipeline.writer.close()
    settings = Settings(data=tmp_path, redis_url="redis://127.0.0.1:1")
    shown = foldlog(settings, "status", "--json", environment={"TZ": time_zone})
    state = json.loads(shown.stdout)
    assert WAITED_S <= state["freshness_s"] < WAITED_S + DEADLINE_S
    assert state["unpublished"] == 1
    assert state["lag"] is None
    assert "connection refused" in state["redis_error"]


def test_what_is_committed_while_redis_is_asked_is_seen_to_be_unpublished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = InProcess(tmp_path)

    def asked_meanwhile(*_: object) -> InRedis:
        pipeline.decide(0, [(b"1-0", b"unreadable", [])])
        return InRedis(lags=dict.fromkeys(range(4), 0))

    monkeypatch.setattr("pipeline.health.status.ask", asked_meanwhile)
    found = status(Settings(data=tmp_path))
    pipeline.writer.close()
    assert (found.lag, found.unpublished) == (0, 1)
