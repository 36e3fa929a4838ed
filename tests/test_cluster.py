"""A group of Bytewax processes that nobody watches over, as on several hosts."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from ingest.cart import cart
from ingest.client import connect
from ingest.producer import Producer
from ingest.streams import partitions_key
from pipeline.log import Log
from pipeline.settings import Settings
from pipeline.status import status
from pipeline.worker import addresses
from tests.running import wait_for
from tests.shopping import shopping


@contextmanager
def group(settings: Settings) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Two processes started by hand; both are gone at the end."""
    hosts = ";".join(addresses(2))
    command = [sys.executable, "-m", "bytewax.run", "pipeline.worker:flow()", "-a", hosts, "-i"]
    environment = {**os.environ, **settings.as_environment()}
    processes = [
        subprocess.Popen(
            [*command, str(number)],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for number in range(2)
    ]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()


def everything_is_published(settings: Settings, rows: int) -> bool:
    now = status(settings)
    return now.lag == 0 == now.unpublished and sum(p.position for p in now.partitions) >= rows


def test_two_processes_share_the_work_end_together_and_resume(settings: Settings) -> None:
    log = Log.create(settings.events, partitions=4, domain=cart.name)
    with connect(settings.reachable_redis) as client:
        client.set(partitions_key(cart.name), 4)
    sent = shopping(1_000)
    distinct = len({command["command_id"] for command in sent if "command_id" in command})
    with Producer(settings.reachable_redis) as producer:
        with group(settings) as (first, second):
            producer.send_many(sent[:500])
            wait_for(lambda: everything_is_published(settings, 100), "the first half")
            assert sum(log.next_position(p) > 0 for p in range(4)) == 4
            second.kill()
            assert first.wait(20) != 0
        producer.send_many(sent[500:])
        with group(settings):
            wait_for(lambda: everything_is_published(settings, 600), "the second half")
    ids = [i for p in range(4) for t in log.read(p) for i in t["command_id"].to_pylist()]
    assert len(set(ids) - {None}) == distinct
    assert len(ids) - ids.count(None) == distinct
