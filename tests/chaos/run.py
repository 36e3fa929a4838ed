"""Kill everything at random, for a while, and compare what is left with an independent computation.

    python -m tests.chaos.run --seed 1 --kills 300 --data /tmp/chaos
    python -m tests.chaos.orders            the same, and carts become orders

Producers send racing commands to shared carts and retry what was not acknowledged, with the same
command ids. Meanwhile workers, the whole pipeline and Redis (AOF, `appendfsync always`) are killed
with SIGKILL; and Redis comes back emptied, from an older copy, or as a replica that was cut off,
with a clock that is behind or ahead, while workers go on, are paused or dead. Everything that
decides when and what is drawn from the seed; the machine decides the rest.

What Redis acknowledged and then lost nobody can handle: a command may be without an outcome if no
server that answered since has had it, and its producer has not sent it again.
"""

from __future__ import annotations

import argparse
import random
import shutil
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import duckdb
import psutil
import redis

from ingest.errors import FoldlogError
from ingest.producer import Producer
from pipeline.settings import Settings
from tests import oracle
from tests.failover import Redis
from tests.running import Up, foldlog, read, wait_for

T = TypeVar("T")

PRODUCERS = 3
CARTS_OF_A_PRODUCER = 40
SHARED_CARTS = 10
SETTLE_S = 120
PARTITIONS = 4
FORGETS = ["emptied", "rolled back", "replaced"]
SKEWS_S = [-10, -3, -1.5, -1, -0.7, -0.4, 0.05, 10]
"""What the clock of a Redis that comes back is ahead by. It is worst where it passes the log's last
id before the workers are back."""


class Shopper(threading.Thread):
    """A producer that sends until told to stop, and remembers what Redis acknowledged."""

    def __init__(self, number: int, seed: int, url: str) -> None:
        super().__init__(name=f"shopper-{number}")
        self._number = number
        self._random = random.Random(f"{seed}-{number}")
        self._url = url
        self.acknowledged: dict[str, dict[str, Any]] = {}
        self.lost: set[str] = set()
        """Of those, what Redis had lost before it was sent again."""
        self.turn = threading.Lock()
        """Held while something is sent, until it is remembered as acknowledged."""
        self._sending: list[dict[str, Any]] = []
        self.stopping = threading.Event()
        self.error: BaseException | None = None

    def attempt(self, send: Callable[[], T]) -> T:
        with self.turn:
            answer = send()
            self.acknowledged |= {c["command_id"]: c for c in self._sending}
            self.lost -= {c["command_id"] for c in self._sending}
            return answer

    def run(self) -> None:
        try:
            with _Sender(self, self._url, retry_s=SETTLE_S) as producer:
                sent = 0
                while not self.stopping.is_set():
                    chunk = [self._command(sent + i) for i in range(self._random.randint(1, 60))]
                    self._send(producer, chunk)
                    if self._random.random() < 0.1:
                        self._send(producer, self._random.sample(chunk, 1))
                    sent += len(chunk)
                    time.sleep(self._random.random() * 0.03)
        except BaseException as error:
            self.error = error

    def _send(self, producer: Producer, commands: list[dict[str, Any]]) -> None:
        self._sending = commands
        producer.send_many(commands)

    def _command(self, number: int) -> dict[str, Any]:
        rnd = self._random
        shared = rnd.random() < 0.3
        cart = rnd.randrange(SHARED_CARTS if shared else CARTS_OF_A_PRODUCER)
        age = number // 400  # new carts come all the time, since the old ones are checked out
        command: dict[str, Any] = {
            "type": rnd.choices(["AddProduct", "RemoveProduct", "CheckOut"], [20, 6, 1])[0],
            "command_id": f"{self._number}-{number}",
            "cart_id": f"shared-{age}-{cart}" if shared else f"{self._number}-{age}-{cart}",
            "occurred_at": f"2017-0{rnd.randint(1, 9)}-11T10:00:00Z",
        }
        if command["type"] != "CheckOut":
            command |= {"product_id": f"p{rnd.randrange(8)}", "quantity": rnd.randint(0, 5)}
        if command["type"] == "AddProduct":
            command["unit_price_cents"] = rnd.randint(1, 2000)
        return command


class _Sender(Producer):
    """A producer each of whose attempts its shopper can hold up."""

    def __init__(self, shopper: Shopper, url: str, *, retry_s: float) -> None:
        self._shopper = shopper
        super().__init__(url, retry_s=retry_s)

    def _retry(self, attempt: Callable[[], T]) -> T:
        return super()._retry(lambda: self._shopper.attempt(attempt))


class Chaos:
    domain = "ingest.shop:shop"
    counts = "outcomes"

    def __init__(self, data: Path, seed: int, workers: int) -> None:
        self._random = random.Random(seed)
        data.mkdir(parents=True, exist_ok=True)
        self.redis = Redis(data, "--appendfsync", "always")
        self.settings = Settings(
            data=data / "data",
            redis_url=self.redis.url,
            workers=workers,
            batch_max=500,
            partitions=PARTITIONS,
            domain=self.domain,
        )
        self.pipeline = Up(self.settings)
        self.pipeline.ready().close()
        self.shoppers = self._shoppers(seed)
        self.kills: dict[str, int] = defaultdict(int)

    def _shoppers(self, seed: int) -> list[Shopper]:
        return [Shopper(n, seed, self.redis.url) for n in range(PRODUCERS)]

    def _rest(self) -> None:
        self.pipeline.settle(SETTLE_S)

    def run(self, kills: int) -> None:
        """Kill so many times, then let everything come to rest."""
        for shopper in self.shoppers:
            shopper.start()
        while sum(self.kills.values()) < kills:
            time.sleep(self._random.random() * 1.5)
            forgets = self._random.choice(FORGETS)
            kinds = ["worker", "reader", "pipeline", "redis", forgets]
            self._kill(self._random.choices(kinds, [4, 3, 2, 3, 2])[0])
        for shopper in self.shoppers:
            shopper.stopping.set()
        for shopper in self.shoppers:
            shopper.join(timeout=SETTLE_S)
            if shopper.error is not None or shopper.is_alive():
                raise AssertionError(f"{shopper.name} did not end well: {shopper.error!r}")
        self._rest()
        code = self.pipeline.stop()
        assert code == 0, f"the pipeline ended with {code}: {self.pipeline.errors()}"

    def _kill(self, what: str) -> None:
        if what in ("worker", "reader"):
            side = self.pipeline.workers() if what == "worker" else self.pipeline.readers()
            if not side:
                return
            with suppress(psutil.NoSuchProcess):
                self._random.choice(side).kill()
        elif what == "pipeline":
            self.pipeline.kill()
            self.pipeline.start()
        elif what == "redis":
            self.pipeline.wait_until_it_says_so()  # it does not start without
            self.redis.now.kill()
            time.sleep(self._random.random())
            self.redis.now.start("--appendfsync", "always")
        else:
            self._forget(what)
        self.kills[what] += 1

    def _forget(self, change: str) -> None:
        """Redis goes back to what it was a little earlier, with a clock that is another."""
        self.pipeline.wait_until_it_says_so()
        skew_s = self._random.choice(SKEWS_S)
        with self._halted():  # so that the log is ahead of what Redis goes back to
            wait_for(lambda: self._waiting() == 0, "the workers to catch up", SETTLE_S)
        older = self.redis.older(change)
        time.sleep(self._random.random() * 0.3)
        if skew_s < 0:
            self._set_clock_ahead(-skew_s)
            time.sleep(0.2)  # for some of its ids to reach the log
        interrupt = self._random.choice([None, "suspend", "kill"])
        interrupted = self.pipeline.workers() if interrupt else []
        for worker in interrupted:
            with suppress(psutil.NoSuchProcess):
                getattr(worker, str(interrupt))()
        with self._halted():
            kept = self.redis.change(change, older)
            for shopper in self.shoppers:
                shopper.lost |= shopper.acknowledged.keys() - kept
            if skew_s > 0:
                self._set_clock_ahead(skew_s)
        if interrupt == "suspend":
            time.sleep(self._random.random() * 2)
            for worker in interrupted:
                with suppress(psutil.NoSuchProcess):
                    worker.resume()

    @contextmanager
    def _halted(self) -> Iterator[None]:
        """Nothing is sent, and what was acknowledged is known."""
        with ExitStack() as halted:
            for shopper in self.shoppers:
                halted.enter_context(shopper.turn)
            yield

    def _waiting(self) -> int:
        with self.redis.now.client() as client:
            return sum(int(client.xlen(f"{{shop-{p}}}:commands")) for p in range(PARTITIONS))

    def _set_clock_ahead(self, by_s: float) -> None:
        """Ids go on from there; so a server that comes after is behind by as much."""
        stream_id = f"{int((time.time() + by_s) * 1000)}-0"
        with self.redis.now.client() as client:
            for partition in range(PARTITIONS):
                key = f"{{shop-{partition}}}:commands"
                with client.pipeline() as at_once, suppress(redis.ResponseError):
                    at_once.xadd(key, {"clock": "ahead"}, id=stream_id)
                    at_once.xdel(key, stream_id)
                    at_once.execute()

    def close(self) -> None:
        for shopper in self.shoppers:
            shopper.stopping.set()
        self.pipeline.kill()
        self.redis.end()

    def differences(self) -> tuple[int, int, list[str]]:
        """How many outcomes there are; how many commands Redis itself has lost; and every way in
        which the outcomes are not what they must be.
        """
        acknowledged = {i: c for s in self.shoppers for i, c in s.acknowledged.items()}
        wrong = []
        with duckdb.connect(str(self.settings.published), read_only=True) as db:
            outcomes = db.execute(
                "SELECT command_id, outcome, reason, partition, first_position FROM outcomes"
                " ORDER BY partition, first_position"
            ).fetchall()
            for relation, key, count in (
                ("live.log", "partition", "max(position) + 1"),
                ("events", "aggregate_id", "max(version)"),
            ):
                number = "position" if key == "partition" else "version"
                gaps = db.execute(
                    f"SELECT {key} FROM {relation} GROUP BY {key} HAVING count(*) <> {count}"
                    f" OR count(DISTINCT {number}) <> count(*)"
                ).fetchall()
                wrong += [f"{key} {found}: {number}s are not contiguous" for (found,) in gaps]
        ids = [row[0] for row in outcomes]
        lost = {i for s in self.shoppers for i in s.lost} - {*ids}
        missing = acknowledged.keys() - lost - {*ids}
        wrong += [f"{i}: acknowledged, and without outcome" for i in missing]
        wrong += (
            [f"{i}: several outcomes" for i in set(ids) if ids.count(i) > 1]
            if len(set(ids)) < len(ids)
            else []
        )
        # The log's order is one that the producers' racing allows; the oracle follows it.
        expected = oracle.expect([acknowledged[i] for i in ids if i in acknowledged])
        got = {i: (o, r) for i, o, r, _, _ in outcomes}
        wrong += [f"{i}: {got.get(i)} instead of {e}" for i, e in expected.outcomes.items()
                  if got.get(i) != e]  # fmt: skip
        shown = read(self.settings.published, "carts", "cart_items", "product_daily")
        if {r[0]: list(r[1:5]) for r in shown["carts"]} != expected.carts:
            wrong.append("carts differ from the oracle's")
        if {(c, p): [q, v] for c, p, q, v, _, _ in shown["cart_items"]} != expected.items:
            wrong.append("cart_items differ from the oracle's")
        if {(p, str(d)): [a, r, v] for p, d, a, r, v in shown["product_daily"]} != expected.daily:
            wrong.append("product_daily differs from the oracle's")
        verified = foldlog(self.settings, "verify")
        if verified.returncode:
            wrong.append(f"verify: {verified.stdout}{verified.stderr}")
        return len(outcomes), len(lost), wrong


def chaos(
    data: Path, *, seed: int, kills: int, workers: int, kind: type[Chaos] = Chaos
) -> tuple[dict[str, int], int, int, list[str]]:
    """One run: kills by kind, outcomes, commands that Redis itself has lost, differences."""
    run = kind(data, seed, workers)
    try:
        run.run(kills)
        return run.kills, *run.differences()
    finally:
        run.close()


def main(kind: type[Chaos] = Chaos) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--data", type=Path)
    given = parser.parse_args()
    total: dict[str, int] = defaultdict(int)
    outcomes, lost, wrong, started = 0, 0, [], time.monotonic()
    for workers in (1, 2):
        data = Path(given.data or tempfile.mkdtemp(prefix="foldlog-chaos-")) / f"workers-{workers}"
        try:
            kills, count, forgotten, differences = chaos(
                data, seed=given.seed, kills=given.kills // 2, workers=workers, kind=kind
            )
        except (AssertionError, FoldlogError) as error:
            raise SystemExit(f"seed {given.seed}, {workers} worker(s), {data}: {error}") from error
        for what, number in kills.items():
            total[what] += number
        outcomes += count
        lost += forgotten
        wrong += differences
        if not wrong:
            shutil.rmtree(data)
    print(f"seed        {given.seed}")
    print(f"kills       {sum(total.values())} ({', '.join(f'{n} {k}' for k, n in total.items())})")
    print(f"{kind.counts:11} {outcomes:,}")
    print(f"lost        {lost:,} by Redis, before they were handled")
    print(f"differences {len(wrong)}")
    print(f"seconds     {time.monotonic() - started:.0f}")
    for line in wrong[:20]:
        print(line)
    if wrong:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
