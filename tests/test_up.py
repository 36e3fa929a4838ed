"""What `foldlog up` starts: both sides together, and no process outlives it."""

from __future__ import annotations

import sys
from collections.abc import Callable

import psutil
import pytest

from ingest.errors import OutcomeTimeout
from pipeline.settings import Settings
from tests.running import Up, wait_for

ADD = {
    "type": "AddProduct",
    "cart_id": "7",
    "product_id": "milk",
    "quantity": 2,
    "unit_price_cents": 89,
}


def test_whoever_has_the_first_outcome_finds_a_file_to_ask(
    settings: Settings, up: Callable[..., Up]
) -> None:
    pipeline = up(settings, cold=True)
    with pipeline.ready() as producer:
        assert not settings.published.exists()
        wait_for(lambda: bool(pipeline.workers() and pipeline.readers()), "both sides")
        producer.execute(ADD, timeout=30)
        assert settings.published.exists()


def test_a_worker_reads_no_command_before_there_is_a_file_to_ask(
    settings: Settings, up: Callable[..., Up]
) -> None:
    pipeline = up(settings, cold=True)
    with pipeline.ready() as producer:
        wait_for(lambda: bool(pipeline.readers()), "a read side")
        (reader,) = pipeline.readers()
        reader.suspend()
        assert not settings.published.exists()
        with pytest.raises(OutcomeTimeout):
            producer.execute(ADD, timeout=5)
        assert pipeline.workers()
        reader.resume()
        producer.execute(ADD, timeout=30)
        assert settings.published.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="macOS has no parent death signal")
def test_none_outlives_the_one_that_has_started_them(
    settings: Settings, up: Callable[..., Up]
) -> None:
    pipeline = up(settings, cold=True)
    pipeline.ready().close()
    wait_for(settings.published.exists, "the read side")
    family = pipeline.family()
    assert len(family) == 2
    pipeline.process.kill()
    _, left = psutil.wait_procs(family, timeout=30)
    assert left == []
