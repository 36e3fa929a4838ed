"""Bytewax processes started by hand, with its own flags, as one cluster."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from ingest.client import connect
from ingest.keys import partitions_key
from ingest.producer import Producer
from ingest.shop import shop
from pipeline.health.status import status
from pipeline.log.log import Log
from pipeline.settings import Settings
from tests.running import wait_for
from tests.shopping import shopping


@contextmanager
def group(settings: Settings) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Two processes started by hand; both are gone at the end."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    hosts = ";".join(f"127.0.0.1:{s.getsockname()[1]}" for s in sockets)
    for s in sockets:
        s.close()
    command = [
        sys.executable,
        "-m",
        "bytewax.run",
        "pipeline.operate.work:by_hand()",
        "-a",
        hosts,
        "-i",
    ]
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


def test_two_processes_share_the_work_and_go_on_after_a_kill(settings: Settings) -> None:
    log = Log.create(settings.events, partitions=4, domain=shop.name)
    with connect(settings.reachable_redis) as client:
        client.set(partitions_key(shop.name), 4)
    sent = shopping(1_000)
    distinct = len({command["command_id"] for command in sent})
    with Producer(settings.reachable_redis) as producer:
        with group(settings) as (first, second):
            producer.send_many(sent[:500])
            wait_for(lambda: all(log.next_position(p) for p in range(4)), "all partitions")
            wait_for(lambda: status(settings).lag == 0, "the first half")
            second.kill()
            assert first.wait(20) != 0
        producer.send_many(sent[500:])
        with group(settings):
            wait_for(lambda: status(settings).lag == 0, "the second half")
    ids = [i for p in range(4) for t in log.read(p) for i in t["command_id"].to_pylist()]
    assert len(ids) == len(set(ids)) == distinct
