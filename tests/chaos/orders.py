"""Orders under chaos, and what all of it must have come to, read from the Parquet files alone.

    python -m tests.chaos.orders --seed 1 --kills 300 --data /tmp/chaos

Carts become orders, stock comes in, and a customer pays most orders and ships those that are paid;
the others are cancelled after seconds. Killed is what `tests.chaos.run` kills.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from zlib import crc32

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.health.status import status
from tests.chaos.run import PARTITIONS, SETTLE_S, Chaos, Shopper, _Sender, main
from tests.running import foldlog, wait_for

Row = dict[str, Any]

PAID_PERCENT = 70
LOOK_S = 0.2
ENDS = {"OrderShipped", "OrderCancelled"}


def rows_of(events: Path, columns: list[str] | None = None) -> dict[int, list[Row]]:
    """Each partition's rows, by position, of all files; those of two must be the same."""
    found: dict[int, dict[int, Row]] = {p: {} for p in range(PARTITIONS)}
    for partition, rows in found.items():
        for path in sorted(events.glob(f"partition={partition}/*.parquet")):
            with suppress(FileNotFoundError):  # compacted and removed
                held = [c for c in columns or () if c in pq.read_schema(path).names] or None
                for row in pq.read_table(path, columns=held, partitioning=None).to_pylist():
                    same = rows.setdefault(row["position"], row)
                    assert same == row, f"{partition}/{row['position']} is held twice, and differs"
    return {p: [rows[at] for at in sorted(rows)] for p, rows in found.items()}


class Buyer(Shopper):
    """Has most carts delivered, and brings stock."""

    def _command(self, number: int) -> Row:
        command = super()._command(number)
        if command["type"] == "CheckOut":
            command["deliver_to"] = "home"
        elif self._random.random() < 0.02:
            product, quantity = f"p{self._random.randrange(8)}", self._random.randint(1, 150)
            command = {"type": "ReceiveStock", "command_id": command["command_id"]}
            command |= {"product_id": product, "quantity": quantity}
        return command


class Customer(Shopper):
    """Pays, and ships, as the log says that it is time to."""

    def __init__(self, seed: int, url: str, events: Path) -> None:
        super().__init__(99, seed, url)
        self._events = events
        self._seen: set[Path] = set()
        self._said: set[str] = set()

    def run(self) -> None:
        try:
            with _Sender(self, self._url, retry_s=SETTLE_S) as producer:
                while not self.stopping.is_set():
                    commands = [*self._new()]
                    if commands:
                        self._send(producer, commands)
                    time.sleep(LOOK_S)
        except BaseException as error:
            self.error = error

    def _new(self) -> Iterator[Row]:
        for path in {*self._events.glob("partition=*/*.parquet")} - self._seen:
            with suppress(FileNotFoundError):
                rows = pq.read_table(
                    path, columns=["event_type", "aggregate_id"], partitioning=None
                )
                yield from self._due(rows)
            self._seen.add(path)

    def _due(self, rows: pa.Table) -> Iterator[Row]:
        for row in rows.to_pylist():
            order = row["aggregate_id"]
            pays = crc32(str(order).encode()) % 100 < PAID_PERCENT
            done = {"OrderPaid": "ShipOrder", "PaymentAwaited": "PayOrder" if pays else None}
            command = done.get(row["event_type"])
            if command and f"{command}-{order}" not in self._said:
                self._said.add(f"{command}-{order}")
                yield {"type": command, "command_id": f"{command}-{order}", "order_id": order}


class OrdersChaos(Chaos):
    """The same, and each cart goes its way to the end."""

    domain = "tests.domains.quick_shop:quick_shop"
    counts = "orders"

    def _shoppers(self, seed: int) -> list[Shopper]:
        buyers = [Buyer(number, seed, self.redis.url) for number in range(2)]
        return [*buyers, Customer(seed, self.redis.url, self.settings.events)]

    def _rest(self) -> None:
        """Until nothing is left to do. What Redis has lost of the shipments is sent once more."""
        deadline = time.monotonic() + SETTLE_S
        for number in range(1000):
            self.pipeline.settle(SETTLE_S)
            wait_for(self._is_at_rest, "sends and deadlines", SETTLE_S)
            paid = self._paid()
            if not paid:
                break
            assert time.monotonic() < deadline, f"{len(paid)} orders are paid, and are not shipped"
            with self.pipeline.ready() as producer:
                again = [{"type": "ShipOrder", "order_id": order} for order in paid]
                producer.send_many(
                    {**command, "command_id": f"again-{number}-{command['order_id']}"}
                    for command in again
                )
        self.pipeline.settle(SETTLE_S)

    def _is_at_rest(self) -> bool:
        sent = status(self.settings).sent
        return not sent.waiting and not sent.deadlines

    def _paid(self) -> list[str]:
        found: dict[str, set[str]] = defaultdict(set)
        rows = rows_of(self.settings.events, ["position", "event_type", "aggregate_id"])
        for row in (row for held in rows.values() for row in held):
            if row["event_type"] in {"OrderPaid", *ENDS}:
                found[row["aggregate_id"]].add(row["event_type"])
        return sorted(order for order, types in found.items() if not types & ENDS)

    def differences(self) -> tuple[int, int, list[str]]:
        """How many orders have ended; how many commands Redis has lost; what is wrong."""
        logs = rows_of(self.settings.events)
        wrong = [*positions(logs), *sends(logs), *deadlines(logs), *orders(logs), *stock(logs)]
        handled = Counter(
            row["command_id"]
            for log in logs.values()
            for row in {(r["stream_id"], r["command_id"]): r for r in log}.values()
            if row["command_id"]
        )
        lost = {i for s in self.shoppers for i in s.lost} - handled.keys()
        acknowledged = {i for s in self.shoppers for i in s.acknowledged}
        wrong += [f"{i}: without outcome" for i in acknowledged - lost - handled.keys()]
        wrong += [f"{i}: {n} outcomes" for i, n in handled.items() if n > 1]
        verified = foldlog(self.settings, "verify")
        if verified.returncode:
            wrong.append(f"verify: {verified.stdout}{verified.stderr}")
        ended = sum(row["event_type"] in ENDS for log in logs.values() for row in log)
        return ended, len(lost), wrong


def positions(logs: dict[int, list[Row]]) -> Iterator[str]:
    """No gaps, neither of positions nor of an aggregate's versions."""
    for partition, log in logs.items():
        if [row["position"] for row in log] != [*range(len(log))]:
            yield f"partition {partition}: positions have gaps"
        last: dict[tuple[str, str], int] = defaultdict(int)
        for row in log:
            if row["version"] is not None:
                key = row["aggregate"], row["aggregate_id"]
                last[key] += 1
                if row["version"] != last[key]:
                    yield f"{' '.join(key)}: version {row['version']} after {last[key] - 1}"


def outcomes(log: list[Row]) -> list[str]:
    """What a partition has handled of what stands in a log, in order; a row each."""
    found: list[str] = []
    for row in log:
        if "/" in row["stream_id"] and found[-1:] != [row["stream_id"]]:
            found.append(row["stream_id"])
    return found


def sends(logs: dict[int, list[Row]]) -> Iterator[str]:
    """Each send has one outcome, where it was sent to, in the order of its sender; no outcome is
    of something that was never sent.
    """
    kinds = {f"{p}/{r['position']}": r["event_type"] for p, log in logs.items() for r in log}
    for to, log in logs.items():
        handled = outcomes(log)
        for sender, its in logs.items():
            asked = [
                f"{sender}/{row['position']}"
                for row in its
                if row["event_type"] == "CommandSent" and row["to_partition"] == to
            ]
            done = [
                source
                for source in handled
                if source.startswith(f"{sender}/") and kinds.get(source) == "CommandSent"
            ]
            if asked != done:
                missing, beyond = {*asked} - {*done}, {*done} - {*asked}
                yield (
                    f"{sender} → {to}: {len(asked)} sent, {len(done)} handled; without outcome"
                    f" {sorted(missing)[:5]}, never sent {sorted(beyond)[:5]}"
                )
        for source in handled:
            if kinds.get(source) not in ("CommandSent", "CommandDeferred"):
                yield f"partition {to} has handled {source}, which is {kinds.get(source)}"


def deadlines(logs: dict[int, list[Row]]) -> Iterator[str]:
    """Each that is the newest of its command has fired once, and none before it was due."""
    for partition, log in logs.items():
        fired = Counter(outcomes(log))
        at = {row["stream_id"]: row["recorded_at"] for row in log if "/" in row["stream_id"]}
        newest = {row["aggregate_id"]: row for row in log if row["event_type"] == "CommandDeferred"}
        for row in log:
            if row["event_type"] != "CommandDeferred":
                continue
            source = f"{partition}/{row['position']}"
            if fired[source] > 1 or (newest[row["aggregate_id"]] is row and fired[source] != 1):
                yield f"deadline {source} has fired {fired[source]} times"
            if source in at and at[source] < row["due_at"]:
                yield f"deadline {source} has fired before it was due"


def orders(logs: dict[int, list[Row]]) -> Iterator[str]:
    """Each cart that was to be delivered is an order that has ended, in one way."""
    events: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in (row for log in logs.values() for row in log):
        if row["version"] is not None:
            events[row["aggregate"], row["aggregate_id"]].append(row)
    carts = {
        cart: row["items"]
        for (kind, cart), rows in events.items()
        for row in rows
        if kind == "cart" and row["event_type"] == "CheckedOut" and row["deliver_to"] is not None
    }
    found = {order: rows for (kind, order), rows in events.items() if kind == "order"}
    for name in carts.keys() ^ found.keys():
        yield f"{name} is {'a cart without an order' if name in carts else 'an order of no cart'}"
    for order in carts.keys() & found.keys():
        types = [row["event_type"] for row in found[order]]
        ends = [kind for kind in types if kind in ENDS]
        if types[0] != "OrderPlaced" or found[order][0]["items"] != carts[order]:
            yield f"order {order} begins with {types[0]}"
        if len(ends) != 1:
            yield f"order {order} has ended {len(ends)} times: {types}"
        if len(types) - len({*types} - {"ItemHeld", "ItemGivenBack"}) != sum(
            kind in ("ItemHeld", "ItemGivenBack") for kind in types
        ):
            yield f"order {order}: something has happened twice: {types}"
        if "OrderShipped" in types and "OrderPaid" not in types:
            yield f"order {order} went out, and was not paid"


def stock(logs: dict[int, list[Row]]) -> Iterator[str]:
    """What came in is there or went out; and what was held for an order was given back, or went
    out with it, to the unit.
    """
    free: Counter[str] = Counter()
    held: dict[tuple[str, str], list[int]] = defaultdict(list)
    signs = {"StockReceived": (1, 0), "StockReserved": (-1, 1), "StockReleased": (1, -1)}
    signs["StockDispatched"] = (0, -1)
    ends: dict[str, str] = {}
    for row in (row for log in logs.values() for row in log):
        if row["event_type"] in ENDS:
            ends[row["aggregate_id"]] = row["event_type"]
        if row["event_type"] not in signs:
            continue
        to_free, to_held = signs[row["event_type"]]
        product = row["aggregate_id"]
        free[product] += to_free * row["quantity"]
        if free[product] < 0:
            yield f"{product}: more was reserved than there was"
        if to_held:
            held[row["order_id"], product].append(to_held * row["quantity"])
    for (order, product), units in held.items():
        if len(units) != 2 or sum(units) or units[0] <= 0:
            yield f"order {order}: of {product} {units} units were held ({ends.get(order)})"


if __name__ == "__main__":
    main(OrdersChaos)
