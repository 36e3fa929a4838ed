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
from pipeline.settings import Settings
from tests.running import Up, foldlog
from tests.shopping import shopping


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
        client.xadd(f"{{cart-{partition}}}:commands", {"command": json.dumps(command)})
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
        assert "{cart--1}:commands, which no partition reads" in checked.stderr
        assert "foldlog resubmit --stray" in checked.stderr
        state = json.loads(foldlog(settings, "status", "--json").stdout)
        assert sum(state["strays"].values()) == astray

        dry = foldlog(settings, "resubmit", "--stray")
        assert f"{astray} commands would be moved; add --yes" in dry.stdout
        assert client.keys("{cart--*")
        moved = foldlog(settings, "resubmit", "--stray", "--yes")
        assert f"moved {astray} commands" in moved.stdout
        assert client.keys("{cart--*") == []
        pipeline.settle()
        assert foldlog(settings, "status", "--check").returncode == 0
    with duckdb.connect(str(settings.published), read_only=True) as db:
        ids = [i for (i,) in db.execute("SELECT command_id FROM outcomes").fetchall()]
    assert sorted(ids) == sorted({str(c["command_id"]) for c in commands})
    assert pipeline.stop() == 0
    assert "{cart--1}:commands, which no partition reads" in pipeline.errors()


@pytest.mark.parametrize("point", ["move.to_send", "move.sent"])
def test_a_move_that_is_killed_and_done_again_loses_nothing_and_doubles_nothing(
    settings: Settings, redis_server: EmbeddedServer, up: Callable[..., Up], point: str
) -> None:
    commands = [c for c in shopping(400) if c["cart_id"] == "cart-3"]
    broken = [b"{broken", b'{"type": "CheckOut"}', b"\xff"]
    with redis.Redis.from_url(redis_server.url) as client:
        for command in commands:
            client.xadd("{cart-NaN}:commands", {"command": json.dumps(command)})
        for payload in broken:
            client.xadd("{cart-04}:commands", {"command": payload})
        pipeline = up(settings)
        pipeline.settle()
        words = ["resubmit", "--stray", "--yes"]
        died = foldlog(settings, *words, environment={crash.VARIABLE: point})
        assert died.returncode == crash.EXIT_CODE
        assert foldlog(settings, *words).returncode == 0
        assert client.xlen("{cart-NaN}:commands") == client.xlen("{cart-04}:commands") == 0
    pipeline.settle()
    with duckdb.connect(str(settings.published), read_only=True) as db:
        unread = db.execute("SELECT payload FROM rejections WHERE command_id IS NULL").fetchall()
        ids = [i for (i,) in db.execute("SELECT command_id FROM outcomes").fetchall() if i]
    assert sorted(payload for (payload,) in unread) == sorted(broken)
    assert sorted(ids) == sorted({c["command_id"] for c in commands})


def test_only_what_no_partition_of_this_domain_has_is_astray(redis_server: EmbeddedServer) -> None:
    with redis.Redis.from_url(redis_server.url, protocol=2) as client:
        client.set(partitions_key("cart"), 4)
        client.set(partitions_key("cart-eu"), 2)
        for stream in ("{cart-0}", "{cart-3}", "{cart-eu-0}", "{cart-eu-7}", "{carts-9}"):
            client.xadd(f"{stream}:commands", {"command": "x"})
        client.xadd("{cart-4}:replies", {"command": "x"})
        client.set("{cart-5}:commands", "no stream")
        client.xadd("{cart-8}:commands", {"command": "x"}, id="1-1")
        client.xdel("{cart-8}:commands", "1-1")
        assert strays.look(client, "cart", 4) == {}
        expected = {}
        for number, name in enumerate(["4", "-2", "00", "NaN", "", "1.5", "us-0", "é"], 1):
            for _ in range(number):
                client.xadd(f"{{cart-{name}}}:commands", {"command": "x"})
            expected[f"{{cart-{name}}}:commands"] = number
        assert strays.found(client, "cart", 4, 1) == {}, "found a moment ago"
        assert strays.look(client, "cart", 4) == expected
        assert strays.found(client, "cart", 4, 1) == expected
        assert 0 < client.ttl("cart:strays") <= strays.FOUND_EXPIRES_S
        assert strays.look(client, "c*", 4) == {}


def test_a_stream_that_is_written_to_while_it_is_moved_loses_nothing(
    redis_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with redis.Redis.from_url(redis_server.url, protocol=2) as client:
        for number in range(250):
            client.xadd("{cart-9}:commands", {"command": f'{{"cart_id": "{number}"}}'})
        late = []

        def add_at_the_end(name: str) -> None:
            if name == "move.sent" and client.xlen("{cart-9}:commands") == 0 and not late:
                late.append(client.xadd("{cart-9}:commands", {"command": "late"}))

        monkeypatch.setattr(crash, "point", add_at_the_end)
        assert strays.move(client, "cart", "cart_id", 4, "{cart-9}:commands") == 251
        assert not client.exists("{cart-9}:commands")
        for partition in range(4):
            for _, fields in client.xrange(f"{{cart-{partition}}}:commands"):
                if fields[b"command"] != b"late":
                    cart_id = json.loads(fields[b"command"])["cart_id"]
                    assert crc32(cart_id.encode()) % 4 == partition
        lengths = [client.xlen(f"{{cart-{partition}}}:commands") for partition in range(4)]
        assert sum(lengths) == 251


def test_either_rejected_or_stray_commands_are_resubmitted(settings: Settings) -> None:
    for words in ([], ["--stray", "--where", "true"]):
        refused = foldlog(settings, "resubmit", *words)
        assert refused.returncode == 2
        assert "either --where SQL or --stray" in " ".join(refused.stderr.split())
