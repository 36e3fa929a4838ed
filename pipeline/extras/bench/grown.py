"""What a log of many millions of events changes: restart, memory, and the rate on top of it."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from ingest.producer import Producer
from ingest.shop.cart import AddProduct
from pipeline.extras.bench.load import PARTITIONS, baskets, cart_ids, fill, log_of_carts, own_redis
from pipeline.extras.bench.table import Figure
from pipeline.extras.bench.throughput import drained
from pipeline.extras.driven import Pipeline
from pipeline.health.status import status
from pipeline.settings import Settings

LIVE_EVENTS, LIVE_LENGTH, LIVE_ITEMS = 10_000_000, 10, 5
"""A million carts that nobody has checked out."""

GIB = 2**30


def measure_live(folder: Path) -> list[Figure]:
    """Restart on a million live aggregates, and memory after a command to each of them."""
    with own_redis(folder / "live") as settings:
        log_of_carts(settings, LIVE_EVENTS, length=LIVE_LENGTH, items=LIVE_ITEMS, checked_out=False)
        _build(settings)
        started = time.perf_counter()
        with Pipeline(settings) as pipeline, Producer(settings.reachable_redis) as producer:
            producer.execute(_add("0", "first"), timeout=600)
            seconds = time.perf_counter() - started
            each = LIVE_EVENTS // LIVE_LENGTH // PARTITIONS
            most = 0
            for partition in range(PARTITIONS):
                ids = cart_ids(partition, each)
                producer.send_many(_add(i, f"touch-{i}") for i in ids)
                while status(settings).lag != 0:
                    most = max(most, pipeline.memory_bytes())
                    time.sleep(0.1)
            most = max(most, pipeline.memory_bytes())
    shutil.rmtree(folder / "live")
    return [
        Figure("restart, 10 M events, 1 M live carts", seconds, "s", goal="≤ 5 s"),
        Figure("memory, a command to each of them", most / GIB, "GiB", goal="≤ 1 GiB"),
    ]  # fmt: skip


def _add(cart_id: str, command_id: str) -> AddProduct:
    return AddProduct(
        command_id=command_id, cart_id=cart_id, product_id="p", quantity=1, unit_price_cents=1
    )


def _build(settings: Settings) -> None:
    """Run a pipeline until its read models and its snapshots hold the log."""
    with Pipeline(settings) as pipeline:
        while not settings.published.exists() or status(settings).unpublished:
            pipeline.check()
            time.sleep(0.5)


def measure_flat(folder: Path, sizes: list[int], count: int | None = None) -> list[Figure]:
    """The pipeline's rate for the demo, or its first `count` commands, on logs of these sizes."""
    sent = [*baskets(count)]
    figures: list[Figure] = []
    for events in sizes:
        with own_redis(folder / "grown") as settings:
            log_of_carts(settings, events, length=10, items=9, checked_out=True)
            _build(settings)
            fill(settings.reachable_redis, sent)
            found = drained(settings, sent).rate
        shutil.rmtree(folder / "grown")
        first = figures[0].value if figures else found
        figures.append(
            Figure(f"stream to read models, log of {events / 1e6:g} M", found, "/s",
                   f"log of {sizes[0] / 1e6:g} M", first, "≥ 0.9")
        )  # fmt: skip
    return figures
