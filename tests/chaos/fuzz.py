"""Any bytes at all: seeded mutations of valid commands, each with exactly one outcome.

python -m tests.chaos.fuzz --seed 1 --count 1000000
"""

from __future__ import annotations

import argparse
import json
import random
import time
from typing import Any

from ingest.entries import Batch
from ingest.envelope import REJECTED, UNREADABLE
from ingest.shop import shop
from pipeline.decide.batch import BatchDecider
from pipeline.decide.partition import Partition
from pipeline.log.encoding import encoded
from tests.running import entry

BATCH = 2_000
DEEP = "[" * 3_000 + "]" * 3_000

ODD_VALUES = [
    "null", "true", "-1", "0", "1e400", "NaN", "-Infinity", "1" * 400, "9223372036854775808", "1.5",
    '""', '"\\ud800"', '"\\u0000"', '"' + "x" * 101 + '"', '"' + "y" * 70_000 + '"', "[]", "{}",
    DEEP, '"2017-01-01T00:00:00"', '"9999-12-31T23:59:59-14:00"', '"0001-01-01T00:00:00+14:00"',
    '"shop:replies:x"', '"{shop-0}:commands"', '"😀"', "[1, 2", '{"a": 1}', "0x10", "'single'",
]  # fmt: skip


def valid(rnd: random.Random, number: int) -> dict[str, Any]:
    command: dict[str, Any] = {
        "type": rnd.choice(["AddProduct", "AddProduct", "RemoveProduct", "CheckOut"]),
        "command_id": f"c{number}",
        "cart_id": f"cart-{rnd.randrange(500)}",
    }
    if command["type"] != "CheckOut":
        command |= {"product_id": rnd.choice("abcdef"), "quantity": rnd.randint(1, 9)}
    if command["type"] == "AddProduct":
        command["unit_price_cents"] = rnd.randint(0, 999)
    return command


def mutated(rnd: random.Random, number: int) -> bytes:
    """A valid command, with up to three things wrong with it."""
    command = valid(rnd, number)
    fields = [f"{json.dumps(k)}: {json.dumps(v)}" for k, v in command.items()]
    for _ in range(rnd.randint(0, 2)):
        name = rnd.choice([*command, "occurred_at", "expected_version", "reply_to", "surprise"])
        field = f"{json.dumps(name)}: {rnd.choice(ODD_VALUES)}"
        if rnd.random() < 0.5:
            fields = [f for f in fields if not f.startswith(f'"{name}"')]
        fields.insert(rnd.randint(0, len(fields)), field)
    payload = bytearray(("{" + ", ".join(fields) + "}").encode("utf-8", "surrogatepass"))
    if rnd.random() < 0.3:
        at = rnd.randrange(len(payload))
        match rnd.randrange(4):
            case 0:
                payload[at] = rnd.randrange(256)
            case 1:
                del payload[at:]
            case 2:
                del payload[at : at + rnd.randint(1, 9)]
            case 3:
                payload[at:at] = rnd.randbytes(rnd.randint(1, 5))
    return bytes(payload)


def command_id_in(payload: bytes) -> str | None:
    """The command id as Python's own parser sees it."""
    try:
        found = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    value = found.get("command_id") if isinstance(found, dict) else None
    return value if isinstance(value, str) else None


def fuzz(seed: int, count: int) -> dict[str, int]:
    """Outcomes by kind. Raises `AssertionError` where a payload has not exactly one."""
    rnd = random.Random(seed)
    fold = BatchDecider(shop, partitions=1, payload_bytes_max=65_536)
    partition = Partition(0)
    kinds = {"accepted": 0, "rejected": 0, "unreadable": 0, "duplicate": 0}
    seen: set[str] = set()
    for at in range(0, count, BATCH):
        payloads = [mutated(rnd, number) for number in range(at, min(count, at + BATCH))]
        entries = [entry(at + i, payload) for i, payload in enumerate(payloads)]
        decided = fold.decide(partition, Batch(0, entries))
        stream_ids = decided.rows["stream_id"].to_pylist()
        assert len(set(stream_ids)) == len(stream_ids)
        with_row = set(stream_ids)
        for (stream_id, _, _), payload in zip(entries, payloads, strict=True):
            command_id = command_id_in(payload)
            if stream_id.decode() not in with_row:
                assert command_id in seen, payload
                kinds["duplicate"] += 1
            if command_id is not None:
                seen.add(command_id)
        for event_type in decided.rows["event_type"].to_pylist():
            kinds[{REJECTED: "rejected", UNREADABLE: "unreadable"}.get(event_type, "accepted")] += 1
        encoded(decided.rows, decided.inputs)
        partition.apply(decided)
    assert sum(kinds.values()) == count
    return kinds


def rate(payloads: list[bytes]) -> float:
    """Commands a second through the fold alone."""
    fold = BatchDecider(shop, partitions=1, payload_bytes_max=65_536)
    entries = [entry(i, payload) for i, payload in enumerate(payloads)]
    started = time.perf_counter()
    fold.decide(Partition(0), Batch(0, entries))
    return len(payloads) / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=1_000_000)
    given = parser.parse_args()
    kinds = fuzz(given.seed, given.count)
    print(f"seed {given.seed}: {given.count:,} payloads, each with one outcome: {kinds}")
    rnd = random.Random(given.seed)
    good = rate([json.dumps(valid(rnd, i)).encode() for i in range(20_000)])
    bad = rate([mutated(rnd, i) for i in range(20_000)])
    print(f"valid {good:,.0f}/s, broken {bad:,.0f}/s: {bad / good:.2f}")


if __name__ == "__main__":
    main()
