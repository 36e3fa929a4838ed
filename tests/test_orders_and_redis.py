"""Whatever Redis forgets while orders go their way: each ends in one way, stock is conserved
to the unit, and no send is lost or handled twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ingest.keys import partitions_key
from pipeline.settings import Settings
from tests.failover import Redis
from tests.ordering import baskets, finish, pay_and_ship, progress, shop_settings
from tests.running import Up, wait_for


@pytest.fixture
def redis_that_changes(tmp_path: Path) -> Iterator[Redis]:
    redis = Redis(tmp_path, "--appendfsync", "always")
    yield redis
    redis.end()


@pytest.mark.parametrize("change", ["flushed", "rolled back", "replaced"])
def test_a_redis_that_forgets_in_the_middle(
    settings: Settings, up: Callable[..., Up], redis_that_changes: Redis, change: str
) -> None:
    """What policies have sent is none of Redis's business; what it lost of the rest, a customer
    asks for again.
    """
    redis = redis_that_changes
    settings = shop_settings(settings).model_copy(update={"redis_url": redis.url})
    pipeline = up(settings)
    with pipeline.ready() as producer:
        producer.send_many(baskets(0, 50))
        wait_for(lambda: len(progress(settings)) > 5, "the first orders")
        older = redis.older(change)
        pay_and_ship(settings, producer)
        time.sleep(0.3)
        redis.change(change, older)
        if change == "flushed":  # which is not noticed where all streams were empty
            with redis.now.client() as client:
                client.set(partitions_key("shop"), 4)
        producer.send_many(baskets(1000, 20))
        pay_and_ship(settings, producer)
    finish(settings, pipeline)
    assert len(progress(settings)) >= 20
