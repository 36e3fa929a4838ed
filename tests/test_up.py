"""What `foldlog up` starts: both sides together, and no process outlives it."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from ingest.errors import OutcomeTimeout
from ingest.producer import Producer
from pipeline.engine.programs import running
from pipeline.settings import Settings
from tests.processes import Program
from tests.running import DEADLINE_S, Up, lives, wait_for

ADD = {
    "type": "AddProduct",
    "cart_id": "7",
    "product_id": "milk",
    "quantity": 2,
    "unit_price_cents": 89,
}


def test_whoever_has_the_first_outcome_finds_a_file_to_ask(
    announced: Settings, up: Callable[..., Up]
) -> None:
    with Producer(announced.reachable_redis) as producer:
        up(announced, cold=True)
        producer.execute(ADD, timeout=DEADLINE_S)
        assert announced.published.exists()


def test_a_worker_reads_no_command_before_there_is_a_file_to_ask(
    announced: Settings, started: Callable[..., Program]
) -> None:
    started("work", announced, "0/1", str(announced.published))
    with Producer(announced.reachable_redis) as producer:
        wait_for(lambda: bool(running(announced)), "the worker")
        with pytest.raises(OutcomeTimeout):
            producer.execute(ADD, timeout=2)
        started("read", announced)
        producer.execute(ADD, timeout=DEADLINE_S)
        assert announced.published.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="macOS has no parent death signal")
def test_none_outlives_the_one_that_has_started_them(
    settings: Settings, up: Callable[..., Up]
) -> None:
    pipeline = up(settings, cold=True)
    pipeline.ready().close()
    family = pipeline.family()
    assert len(family) == 2
    pipeline.process.kill()
    wait_for(lambda: not any(map(lives, family)), "all of it to end")
