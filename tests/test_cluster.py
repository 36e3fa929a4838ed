"""Bytewax processes started by hand, with its own flags, as one cluster."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from ingest.producer import Producer
from pipeline.health.status import status
from pipeline.log.log import Log
from pipeline.settings import Settings
from tests.running import DEADLINE_S, wait_for
from tests.servers import free_port
from tests.shopping import shopping


@contextmanager
def group(settings: Settings) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Two processes started by hand; both are gone at the end."""
    port = free_port()
    hosts = f"127.0.0.1:{port};127.0.0.1:{port + 1}"
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


@pytest.mark.usefixtures("announced")
def test_two_processes_share_the_work_and_go_on_after_a_kill(settings: Settings) -> None:
    log = Log.open(settings.events, domain="shop")
    sent = shopping(1_000)
    distinct = len({command["command_id"] for command in sent})
    with Producer(settings.reachable_redis) as producer:
        with group(settings) as (first, second):
            producer.send_many(sent[:500])
            wait_for(lambda: all(log.next_position(p) for p in range(4)), "all partitions")
            wait_for(lambda: status(settings).lag == 0, "the first half")
            second.kill()
            assert first.wait(DEADLINE_S) != 0
        producer.send_many(sent[500:])
        with group(settings):
            wait_for(lambda: status(settings).lag == 0, "the second half")
    ids = [i for p in range(4) for t in log.read(p) for i in t["command_id"].to_pylist()]
    assert len(ids) == len(set(ids)) == distinct
