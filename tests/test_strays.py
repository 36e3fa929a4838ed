"""Commands in streams that no partition has: they are seen, and can be put right."""

from __future__ import annotations

import json
from collections.abc import Callable
from zlib import crc32

import duckdb
import pytest
import redis

from ingest import crash, strays
from ingest.keys import partitions_key
from ingest.server import EmbeddedServer
from ingest.shop import shop
from pipeline.settings import Settings
from tests.domains.depot import depot
from tests.oracle import partition_of
from tests.running import Up, foldlog
from tests.shopping import shopping
from tests.stocktaking import trading


def signed_crc32(text: str) -> int:
    """As npm's crc-32 computes it."""
    found = crc32(text.encode())
    return found - 2**32 if found >= 2**31 else found


def remainder(dividend: int, divisor: int) -> int:
    """As JavaScript, C and Java compute %: with the dividend's sign."""
    return dividend - divisor * int(dividend / divisor)


def send_signed(client: redis.Redis, commands: list[dict[str, object]]) -> int:
    """Send as a producer with a signed CRC-32 does; how many lie where nobody reads them."""
    astray = 0
    for command in commands:
        partition = remainder(signed_crc32(str(command["cart_id"])), 4)
        client.xadd(f"{{shop-{partition}}}:commands", {"command": json.dumps(command)})
        astray += partition < 0
    return astray


def test_commands_of_a_signed_checksum_are_warned_of_and_moved_to_their_partitions(
    settings: Settings, redis_server: EmbeddedServer, up: Callable[..., Up]
) -> None:
    commands = shopping(200)
    with redis.Redis.from_url(redis_server.url) as client:
        astray = send_signed(client, commands)
        assert astray > 20
        pipeline = up(settings)
        pipeline.settle()
        shown = foldlog(settings, "status").stdout
        assert "which no partition reads" in " ".join(shown.split())
        checked = foldlog(settings, "status", "--check")
        assert checked.returncode == 1
        assert "{shop--1}:commands, which no partition reads" in checked.stderr
        assert "foldlog resubmit --stray" in checked.stderr
        state = json.loads(foldlog(settings, "status", "--json").stdout)
        assert sum(state["strays"].values()) == astray

        dry = foldlog(settings, "resubmit", "--stray")
        assert f"{astray} commands would be moved; add --yes" in dry.stdout
        assert client.keys("{shop--*")
        moved = foldlog(settings, "resubmit", "--stray", "--yes")
        assert f"moved {astray} commands" in moved.stdout
        assert client.keys("{shop--*") == []
        pipeline.settle()
        assert foldlog(settings, "status", "--check").returncode == 0
    with duckdb.connect(str(settings.published), read_only=True) as db:
        ids = [i for (i,) in db.execute("SELECT command_id FROM outcomes").fetchall()]
    assert sorted(ids) == sorted({str(c["command_id"]) for c in commands})
    assert pipeline.stop() == 0
    assert "{shop--1}:commands, which no partition reads" in pipeline.errors()


@pytest.mark.parametrize("point", ["move.to_send", "move.sent"])
def test_a_move_that_is_killed_and_done_again_loses_nothing_and_doubles_nothing(
    settings: Settings, redis_server: EmbeddedServer, up: Callable[..., Up], point: str
) -> None:
    commands = [c for c in shopping(400) if c["cart_id"] == "cart-3"]
    broken = [b"{broken", b'{"type": "CheckOut"}', b"\xff"]
    with redis.Redis.from_url(redis_server.url) as client:
        for command in commands:
            client.xadd("{shop-NaN}:commands", {"command": json.dumps(command)})
        for payload in broken:
            client.xadd("{shop-04}:commands", {"command": payload})
        pipeline = up(settings)
        pipeline.settle()
        words = ["resubmit", "--stray", "--yes"]
        died = foldlog(settings, *words, environment={crash.VARIABLE: point})
        assert died.returncode == crash.EXIT_CODE
        assert foldlog(settings, *words).returncode == 0
        assert client.xlen("{shop-NaN}:commands") == client.xlen("{shop-04}:commands") == 0
    pipeline.settle()
    with duckdb.connect(str(settings.published), read_only=True) as db:
        unread = db.execute("SELECT payload FROM rejections WHERE command_id IS NULL").fetchall()
        ids = [i for (i,) in db.execute("SELECT command_id FROM outcomes").fetchall() if i]
    assert sorted(payload for (payload,) in unread) == sorted(broken)
    assert sorted(ids) == sorted({c["command_id"] for c in commands})


def test_only_what_no_partition_of_this_domain_has_is_astray(redis_server: EmbeddedServer) -> None:
    with redis.Redis.from_url(redis_server.url, protocol=2) as client:
        client.set(partitions_key("shop"), 4)
        client.set(partitions_key("shop-eu"), 2)
        for stream in ("{shop-0}", "{shop-3}", "{shop-eu-0}", "{shop-eu-7}", "{shops-9}"):
            client.xadd(f"{stream}:commands", {"command": "x"})
        client.xadd("{shop-4}:replies", {"command": "x"})
        client.set("{shop-5}:commands", "no stream")
        client.xadd("{shop-8}:commands", {"command": "x"}, id="1-1")
        client.xdel("{shop-8}:commands", "1-1")
        assert strays.look(client, "shop", 4) == {}
        expected = {}
        for number, name in enumerate(["4", "-2", "00", "NaN", "", "1.5", "us-0", "é"], 1):
            for _ in range(number):
                client.xadd(f"{{shop-{name}}}:commands", {"command": "x"})
            expected[f"{{shop-{name}}}:commands"] = number
        assert strays.found(client, "shop", 4, 1) == {}, "found a moment ago"
        assert strays.look(client, "shop", 4) == expected
        assert strays.found(client, "shop", 4, 1) == expected
        assert 0 < client.ttl("shop:strays") <= strays.FOUND_EXPIRES_S
        assert strays.look(client, "s*", 4) == {}


def test_a_stream_that_is_written_to_while_it_is_moved_loses_nothing(
    redis_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with redis.Redis.from_url(redis_server.url, protocol=2) as client:
        for number in range(250):
            client.xadd(
                "{shop-9}:commands", {"command": f'{{"type": "CheckOut", "cart_id": "{number}"}}'}
            )
        late = []

        def add_at_the_end(name: str) -> None:
            if name == "move.sent" and client.xlen("{shop-9}:commands") == 0 and not late:
                late.append(client.xadd("{shop-9}:commands", {"command": "late"}))

        monkeypatch.setattr(crash, "point", add_at_the_end)
        assert strays.move(client, shop, 4, "{shop-9}:commands") == 251
        assert not client.exists("{shop-9}:commands")
        for partition in range(4):
            for _, fields in client.xrange(f"{{shop-{partition}}}:commands"):
                if fields[b"command"] != b"late":
                    cart_id = json.loads(fields[b"command"])["cart_id"]
                    assert crc32(cart_id.encode()) % 4 == partition
        lengths = [client.xlen(f"{{shop-{partition}}}:commands") for partition in range(4)]
        assert sum(lengths) == 251


def test_what_is_astray_goes_to_its_aggregates_partition_and_what_names_none_to_the_first(
    redis_server: EmbeddedServer,
) -> None:
    commands = trading(40)
    nameless = [{"product_id": "tea"}, {"type": "Steal", "product_id": "tea"}, ["tea"]]
    with redis.Redis.from_url(redis_server.url, protocol=2) as client:
        for command in (*commands, *nameless):
            client.xadd("{depot-9}:commands", {"command": json.dumps(command)})
        assert strays.move(client, depot, 4, "{depot-9}:commands") == 43
        for partition in range(4):
            entries = client.xrange(f"{{depot-{partition}}}:commands")
            found = [json.loads(fields[b"command"]) for _, fields in entries]
            right = [c for c in commands if partition_of(str(c["product_id"]), 4) == partition]
            assert found == right + (nameless if partition == 0 else [])


def test_either_rejected_or_stray_commands_are_resubmitted(settings: Settings) -> None:
    for words in ([], ["--stray", "--where", "true"]):
        refused = foldlog(settings, "resubmit", *words)
        assert refused.returncode == 2
        assert "either --where SQL or --stray" in " ".join(refused.stderr.split())
