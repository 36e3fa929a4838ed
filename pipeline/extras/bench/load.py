"""What is sent, what logs are made of, and Redis' own limits."""

from __future__ import annotations

import itertools
import random
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import redis
from pydantic_core import to_json

from ingest.command import partition_of
from ingest.entries import Batch
from ingest.keys import command_stream, partitions_key
from ingest.producer import Producer
from ingest.server import EmbeddedServer
from ingest.shop import shop
from pipeline.decide.batch import BatchDecider
from pipeline.decide.outcomes import Outcomes
from pipeline.decide.partition import Partition
from pipeline.extras.baskets import commands
from pipeline.log.log import Log
from pipeline.log.schemas import Schemas
from pipeline.settings import Settings
from projections.session import session

PARTITIONS = 4
READ_COUNT = 8192
PACKED = 100
"""XADDs that go to Redis at a time, where only Redis is measured."""

LARGE_FILE = 1_000_000

CARTS = """
    SELECT
        {partition}::INTEGER AS partition, i AS position,
        (1700000000000 + i // 100)::VARCHAR || '-' || (i % 100)::VARCHAR AS stream_id,
        CASE WHEN added THEN 'ProductAdded' ELSE 'CheckedOut' END AS event_type,
        'cart' AS aggregate, cart_id AS aggregate_id, i % {length} + 1 AS version,
        'c-{partition}-' || i::VARCHAR AS command_id,
        NULL::VARCHAR AS correlation_id, NULL::VARCHAR AS causation_id,
        TIMESTAMP '2023-11-14' + INTERVAL (i // 100) MILLISECOND AS recorded_at,
        TIMESTAMP '2022-11-14' + INTERVAL (i * 6) SECOND AS occurred_at,
        1::SMALLINT AS schema_version,
        CASE WHEN added THEN 'p' || (hash(i // {length}, i % {items}) % 50000)::VARCHAR END
            AS product_id,
        CASE WHEN added THEN (hash(i, 1) % 5 + 1)::BIGINT END AS quantity,
        CASE WHEN added THEN (hash(i, 2) % 2000)::BIGINT END AS unit_price_cents,
        NULL::BIGINT AS value_cents, NULL::VARCHAR AS reason, NULL::BLOB AS payload
    FROM (
        SELECT i, cart_id, i % {length} <> {check_out} AS added
        FROM range({first}, {last}) AS numbers(i) JOIN carts ON carts.n = i // {length}
    )
    ORDER BY i
"""


@contextmanager
def own_redis(data: Path) -> Iterator[Settings]:
    """Settings for `data`, with a Redis that stays while a pipeline comes and goes."""
    server = EmbeddedServer(data, Settings().redis_server)
    try:
        server.keep_running()
        with redis.Redis.from_url(server.url) as client:
            client.set(partitions_key(shop.name), PARTITIONS)
        yield Settings(data=data, redis_url=server.url, partitions=PARTITIONS)
    finally:
        server.stop()


def baskets(limit: int | None = None) -> Iterator[dict[str, Any]]:
    """The demo's commands, with random UUIDs as producers send them; the same ones each time."""
    rnd = random.Random(1)
    for chunk in commands(limit):
        for command in chunk:
            yield {**command, "command_id": str(uuid.UUID(int=rnd.getrandbits(128), version=4))}


def random_carts(count: int) -> Iterator[dict[str, Any]]:
    """Additions to a twentieth as many carts, each to one of them at random; the same each time."""
    rnd = random.Random(2)
    for _ in range(count):
        yield {
            "type": "AddProduct",
            "command_id": str(uuid.UUID(int=rnd.getrandbits(128), version=4)),
            "cart_id": str(rnd.randrange(max(1, count // 20))),
            "product_id": str(rnd.randrange(5000)),
            "quantity": rnd.randrange(1, 5),
            "unit_price_cents": rnd.randrange(100, 5000),
        }


def fill(url: str, sent: list[dict[str, Any]]) -> float:
    """Send them all; commands a second."""
    started = time.perf_counter()
    with Producer(url) as producer:
        producer.send_many(sent)
    return len(sent) / (time.perf_counter() - started)


def fill_packed(url: str, sent: list[dict[str, Any]]) -> float:
    """The same entries as bytes that are ready before the clock runs; XADDs a second."""
    with redis.Redis.from_url(url) as client:
        connection = client.connection_pool.get_connection()
        packed = []
        for first in range(0, len(sent), PACKED):
            pipe = [
                ("XADD", command_stream("packed", n % PARTITIONS), "*", "command", to_json(c))
                for n, c in enumerate(sent[first : first + PACKED])
            ]
            packed.append((len(pipe), connection.pack_commands(pipe)))
        started = time.perf_counter()
        for count, request in packed:
            connection.send_packed_command(request)
            for _ in range(count):
                connection.read_response()
        seconds = time.perf_counter() - started
        client.delete(*(command_stream("packed", n) for n in range(PARTITIONS)))
    return len(sent) / seconds


def drain(url: str) -> float:
    """Read all command streams by bare XREAD, and drop what comes; entries a second."""
    seen, started = 0, time.perf_counter()
    with redis.Redis.from_url(url, protocol=2) as client:
        for partition in range(PARTITIONS):
            stream, last = command_stream(shop.name, partition), b"0"
            while found := client.xread({stream: last}, count=READ_COUNT):
                entries = found[0][1]
                last = entries[-1][0]
                seen += len(entries)
    return seen / (time.perf_counter() - started)


def log_of_baskets(settings: Settings) -> None:
    """The demo's commands, decided and committed without Redis."""
    log = Log.create(settings.events, partitions=PARTITIONS, domain=shop.name)
    fold = BatchDecider(shop, partitions=PARTITIONS, payload_bytes_max=settings.payload_bytes_max)
    partitions = [
        Partition(number, outcomes=Outcomes(log=log, number=number)) for number in range(PARTITIONS)
    ]
    waiting: list[list[tuple[bytes, bytes, list[bytes]]]] = [[] for _ in partitions]

    def commit(partition: Partition) -> None:
        decided = fold.decide(partition, Batch(partition.number, [*waiting[partition.number]]))
        waiting[partition.number].clear()
        partition.apply(decided)
        log.append(partition.number, decided.first, decided.rows)

    for number, command in enumerate(baskets()):
        stream_id = b"%d-%d" % (1_700_000_000_000 + number // 100, number % 100)
        of = partition_of(command["cart_id"], PARTITIONS)
        waiting[of].append((stream_id, to_json(command), []))
        if len(waiting[of]) == settings.batch_max:
            commit(partitions[of])
    for partition in partitions:
        commit(partition)
    Schemas(shop, log)


def cart_ids(partition: int, count: int) -> list[str]:
    """The first `count` numbers that are carts of that partition."""
    numbers = map(str, itertools.count())
    mine = (number for number in numbers if partition_of(number, PARTITIONS) == partition)
    return list(itertools.islice(mine, count))


def log_of_carts(
    settings: Settings, events: int, *, length: int, items: int, checked_out: bool
) -> None:
    """Carts of `length` events over `items` products, the last perhaps a check-out; large files."""
    log = Log.create(settings.events, partitions=PARTITIONS, domain=shop.name)
    each = events // PARTITIONS // length * length
    check_out = length - 1 if checked_out else length
    with session() as db:
        for partition in range(PARTITIONS):
            ids = cart_ids(partition, each // length)
            db.register("carts", pa.table({"n": range(len(ids)), "cart_id": ids}))
            for first in range(0, each, LARGE_FILE):
                query = CARTS.format(
                    partition=partition, length=length, items=items, check_out=check_out,
                    first=first, last=min(each, first + LARGE_FILE),
                )  # fmt: skip
                rows: pa.Table = db.sql(query).to_arrow_table()
                known = pa.schema([shop.schema.field(name) for name in rows.schema.names])
                whole = [shop.schema.empty_table(), rows.cast(known)]
                log.append(partition, first, pa.concat_tables(whole, promote_options="default"))
    Schemas(shop, log)
