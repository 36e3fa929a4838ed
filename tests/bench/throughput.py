"""Commands a second: from the streams to the committed log and the published read models.

    python tests/bench/throughput.py [COMMANDS]

One worker, four partitions, the embedded Redis with `appendfsync always`, the demo's real baskets.
The streams are filled first; the clock runs from the first commit to the publish that holds
everything. In the same run, a loop of bare XREAD drains the same streams.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import redis

from ingest.producer import Producer
from ingest.server import EmbeddedServer
from ingest.streams import command_stream, partitions_key
from pipeline.demo import commands
from pipeline.log import Log
from pipeline.settings import Settings
from pipeline.status import status

PARTITIONS = 4
READ_COUNT = 8192


def fill(url: str, limit: int) -> float:
    """Send the demo's first commands; commands a second."""
    with redis.Redis.from_url(url) as client:
        client.set(partitions_key("cart"), PARTITIONS)
    chunks = list(commands(limit))
    started = time.perf_counter()
    with Producer(url) as producer:
        producer.send_many(itertools.chain.from_iterable(chunks))
    return limit / (time.perf_counter() - started)


def drain(url: str) -> float:
    """Read all streams by bare XREAD, and drop what comes; entries a second."""
    client = redis.Redis.from_url(url, protocol=2)
    seen, started = 0, time.perf_counter()
    for partition in range(PARTITIONS):
        stream, last = command_stream("cart", partition), b"0"
        while found := client.xread({stream: last}, count=READ_COUNT):
            entries = found[0][1]
            last = entries[-1][0]
            seen += len(entries)
    return seen / (time.perf_counter() - started)


def pipeline(settings: Settings, limit: int) -> float:
    """Run `foldlog up` until all is published; commands a second."""
    command = [sys.executable, "-m", "pipeline.cli", "up", "--quiet"]
    process = subprocess.Popen(command, env={**os.environ, **settings.as_environment()})
    try:
        while True:
            time.sleep(0.5)
            if process.poll() is not None:
                raise SystemExit("the pipeline has stopped")
            if not settings.published.exists():
                continue
            now = status(settings)
            if now.lag == 0 and now.unpublished == 0:
                break
        log = Log.open(settings.events, domain="cart")
        firsts = [log.files(partition)[0] for partition in range(PARTITIONS)]
        first = min(firsts, key=lambda file: file.path.stat().st_mtime)
        seconds = settings.published.stat().st_mtime - first.path.stat().st_mtime
        return (limit - len(log.read_file(first, ["position"]))) / seconds
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def main(limit: int) -> None:
    data = Path(tempfile.mkdtemp(prefix="foldlog-bench-"))
    server = EmbeddedServer(data)
    try:
        server.keep_running()
        settings = Settings(data=data, redis_url=server.url, partitions=PARTITIONS)
        sent = fill(server.url, limit)
        bare = drain(server.url)
        rate = pipeline(settings, limit)
        print(f"commands            {limit:>10,}")
        print(f"producer send_many  {sent:>10,.0f}/s")
        print(f"bare XREAD drain    {bare:>10,.0f}/s")
        size = sum(path.stat().st_size for path in settings.events.rglob("*.parquet"))
        print(f"pipeline            {rate:>10,.0f}/s  {rate / bare:.2f} of the bare drain")
        print(f"event log           {size / limit:>10.1f} bytes a command")
    finally:
        server.stop()
        shutil.rmtree(data)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 400_000)
