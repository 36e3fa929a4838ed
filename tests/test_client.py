"""Contact with Redis: what is wrong is told in one line, and no line holds a password."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.async_producer import AsyncProducer
from ingest.client import connect, durability_warning
from ingest.diagnosis import shown
from ingest.errors import FoldlogError, RedisUnreachable
from ingest.keys import partitions_key
from ingest.producer import Producer
from pipeline.cli import main
from pipeline.health.status import status
from pipeline.log.log import Log
from pipeline.settings import Settings
from tests.running import Up, foldlog, wait_for
from tests.servers import Server, listener, server
from tests.shopping import shopping

PASSWORD = "p/w?d#@:%41é-4711"
"""Has everything that must be quoted in a URL."""


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://localhost", "redis://localhost"),
        ("redis://redis.example:6380/2", "redis://redis.example:6380/2"),
        ("redis://:secret@redis:6379/0", "redis://redis:6379/0"),
        ("redis://ann:secret@redis", "redis://ann@redis"),
        ("redis://secret@redis", "redis://redis"),
        ("rediss://ann:se%40cret@[::1]:6379", "rediss://ann@[::1]:6379"),
        ("redis://ann:se@cret@redis", "redis://ann@redis"),
        ("redis://redis/0?password=secret&username=ann", "redis://redis/0"),
        ("unix:///data/redis/redis.sock", "unix:///data/redis/redis.sock"),
        ("unix:///home/a@b/redis.sock?db=1&password=secret", "unix:///home/a@b/redis.sock"),
        ("unix://ann:secret@/data/redis.sock", "unix://ann@/data/redis.sock"),
        ("redis://:sec/ret@redis", "redis://…"),
        ("redis://:sec?ret@redis", "redis://…"),
        ("redis://redis?password=sec@ret", "redis://…"),
        ("redis://ann:secret", "redis://…"),
        ("ann:secret@redis:6379", "ann@redis:6379"),
        (":secret", "…"),
        ("nonsense", "nonsense"),
    ],
)
def test_a_url_is_shown_without_what_might_be_a_password(url: str, expected: str) -> None:
    assert shown(url) == expected


@given(password=st.text(min_size=3), quoted=st.booleans())
def test_no_password_is_ever_shown(password: str, quoted: bool) -> None:
    secret = f"[{password}]"
    written = quote(secret, safe="") if quoted else secret
    for url in (
        f"redis://{written}@redis:6379/0",
        f"redis://:{written}@redis:6379/0",
        f"redis://ann:{written}@redis",
        f"redis://redis/0?password={written}",
        f"unix:///redis.sock?password={written}",
        f"unix://:{written}@/redis.sock",
        f"ann:{written}@redis",
    ):
        assert secret not in shown(url)
        assert password not in shown(url).replace("redis", "").replace("ann", "") or (
            password in "://…@/:6379/0.sock"
        )


def acl(admin: Server, user: str, *rules: str) -> str:
    """A user with a password and these rules; the URL to log in."""
    with admin.client() as client:
        client.execute_command("ACL", "SETUSER", user, "on", f">{PASSWORD}", *rules)
    return admin.url(f"{user}:{quote(PASSWORD, safe='')}")


@contextmanager
def wrong(kind: str) -> Iterator[tuple[str, str]]:
    """The URL of something that will not do, and what has to be said about it."""
    if kind == "connection refused":
        yield "redis://127.0.0.1:1", "does not answer (connection refused); start one with"
    elif kind == "no socket":
        yield "unix:///nowhere/redis.sock", "does not answer (there is no such socket); start one"
    elif kind == "unknown host":
        yield "redis://no-such-host.invalid", "mend the host in the URL"
    elif kind == "no redis":
        with listener(b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
            yield f"redis://127.0.0.1:{port}", "is no Redis: it answers something else"
    elif kind == "hangs up":
        with listener() as port:
            yield f"redis://127.0.0.1:{port}", "does not answer (Connection closed by server"
    elif kind == "tls expected":
        with listener(tls=True) as port:
            yield f"redis://127.0.0.1:{port}", "speaks TLS only; write rediss://"
    elif kind == "no tls":
        with server() as plain:
            url = f"rediss://127.0.0.1:{plain.port}?socket_timeout=0.5"
            yield url, "does not speak TLS; write redis://"
    elif kind == "untrusted certificate":
        with listener(tls=True) as port:
            yield f"rediss://127.0.0.1:{port}", "has a certificate that is not trusted"
    elif kind == "wrong password":
        with server() as plain:
            acl(plain, "ann")
            yield plain.url("ann:wrong"), "refuses the user or the password; mend them"
    elif kind == "no password":
        with server("--requirepass", "x") as closed:
            yield closed.url(), "wants a password; write it into the URL"
    elif kind == "needless password":
        with server() as plain:
            yield plain.url(":needless"), "has no password, and the URL has one"
    elif kind == "cluster":
        with server("--cluster-enabled", "yes") as cluster:
            yield cluster.url(), "is a cluster, which Foldlog does not use"
    elif kind == "no rights":
        with server() as plain:
            url = acl(plain, "ann", "allkeys", "+@all", "-get", "-xread", "-xlen")
            yield url, "does not allow this user to run "


KINDS = [
    "connection refused", "no socket", "unknown host", "no redis", "hangs up", "tls expected",
    "no tls", "untrusted certificate", "wrong password", "no password", "needless password",
    "cluster", "no rights",
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_wrong_with_redis_is_one_line_for_everyone_who_needs_it(
    tmp_path: Path, kind: str
) -> None:
    with wrong(kind) as (url, expected):
        settings = Settings(data=tmp_path / "data", redis_url=url)
        said = []
        if kind in ("connection refused", "tls expected", "cluster", "no rights"):
            started = foldlog(settings, "up")
            assert started.returncode == 1
            assert started.stderr.count("\n") == 1, started.stderr
            said.append(started.stderr)
        if kind != "no rights":
            with pytest.raises(RedisUnreachable) as refused:
                connect(url)
            said.append(str(refused.value))
        Log.create(settings.events, partitions=4, domain="shop")
        said.append(str(status(settings).redis_error))
        with pytest.raises(RedisUnreachable) as refused:
            Producer(url, retry_s=0.2)
        said.append(str(refused.value))
        with pytest.raises(RedisUnreachable) as refused:
            asyncio.run(AsyncProducer.connect(url, retry_s=0.2))  # type: ignore[arg-type]
        said.append(str(refused.value))
        for line in said:
            assert expected in line
            assert shown(url) in line
            assert "\n" not in line.strip()


def test_a_replica_is_refused_with_the_name_of_its_primary(tmp_path: Path) -> None:
    with server() as primary:
        with primary.client() as client:
            client.set(partitions_key("shop"), 4)
        with server("--replicaof", "127.0.0.1", str(primary.port)) as replica:
            url = replica.url()
            with replica.client() as client:
                wait_for(lambda: client.get(partitions_key("shop")) == b"4", "the replica")
            started = foldlog(Settings(data=tmp_path / "data", redis_url=url), "up")
            assert started.returncode == 1
            expected = f"is a read-only replica of 127.0.0.1:{primary.port}; name its primary"
            assert expected in started.stderr
            assert started.stderr.count("\n") == 1
            producer = Producer(url, retry_s=0.2)
            with pytest.raises(RedisUnreachable, match="is a read-only replica"):
                producer.send({"type": "CheckOut", "cart_id": "7"})
            producer.close()


@pytest.mark.parametrize("kind", ["wrong password", "no rights", "cluster"])
def test_a_mistake_is_told_at_once_and_not_tried_again(kind: str) -> None:
    with wrong(kind) as (url, expected), pytest.raises(RedisUnreachable) as refused:
        Producer(url, retry_s=10_000)
    assert expected in str(refused.value)


def test_a_frozen_redis_holds_up_nobody_for_long(tmp_path: Path) -> None:
    with server() as frozen:
        settings = Settings(data=tmp_path / "data", redis_url=frozen.url())
        Log.create(settings.events, partitions=4, domain="shop")
        frozen.process.send_signal(signal.SIGSTOP)
        checked = foldlog(settings, "status", "--check", "--timeout-s", "0.5")
        assert checked.returncode == 1
        assert "does not answer in time: it is frozen" in checked.stderr
        with pytest.raises(RedisUnreachable, match="does not answer in time"):
            connect(settings.reachable_redis, timeout_s=0.2)


@pytest.mark.parametrize("flags", [[], ["--appendonly", "yes", "--appendfsync", "always",
                                        "--maxmemory-policy", "noeviction"]])  # fmt: skip
def test_settings_that_weaken_the_promise_are_named(flags: list[str]) -> None:
    with server(*flags) as found, connect(found.url()) as client:
        warning = durability_warning(client)
    if flags:
        assert warning is None
    else:
        assert warning is not None
        assert "appendonly no (not yes), appendfsync everysec (not always)" in warning


def test_settings_that_may_not_be_seen_are_no_error() -> None:
    with server() as found:
        url = acl(found, "ann", "+@all", "-config", "allkeys")
        with connect(url) as client:
            assert "does not show its settings" in str(durability_warning(client))


def said_by(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str) -> str:
    """What one command of the command line prints, run in this process."""
    monkeypatch.setattr(sys, "argv", ["foldlog", *words])
    with pytest.raises(SystemExit):
        main()
    captured = capfd.readouterr()
    return captured.out + captured.err


TALKING = [["send", "-"], ["status"], ["resubmit", "--stray"]]
OTHERS = [["send", "-", "--wait"], ["status", "--json"], ["resubmit", "--where", "true", "--yes"],
          ["query", "SELECT 1"], ["history", "7"], ["verify"], ["compact"], ["rebuild"],
          ["export"], ["schema"], ["new", "cart"]]  # fmt: skip


def urls(plain: Server) -> dict[str, str]:
    quoted = quote(PASSWORD, safe="")
    return {
        "wrong password": plain.url(f"ann:{quoted}"),
        "wrong default password": plain.url(f":{quoted}"),
        "unreachable": f"redis://ann:{quoted}@127.0.0.1:1/0",
        "unknown host": f"redis://:{quoted}@no-such-host.invalid",
        "no tls": f"rediss://:{quoted}@127.0.0.1:{plain.port}?socket_timeout=0.1",
        "in the query": f"redis://127.0.0.1:{plain.port}/0?username=ann&password={quoted}",
        "a socket": f"unix://{plain.socket}?password={quoted}",
        "not quoted": plain.url(f"ann:{PASSWORD}"),
        "not quoted in the query": f"redis://127.0.0.1:{plain.port}?password={PASSWORD}",
        "without host": f"redis://ann:{PASSWORD}",
        "nothing but a password": f":{PASSWORD}",
        "another argument": f"redis://:{quoted}@127.0.0.1:{plain.port}?nonsense=1",
    }


def assert_hidden(text: str) -> None:
    for secret in (PASSWORD, quote(PASSWORD, safe=""), quote(PASSWORD), "4711", "%41", "p/w"):
        assert secret not in text, text


def test_no_command_prints_the_password(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Log.create(tmp_path / "data" / "events", partitions=4, domain="shop")
    monkeypatch.chdir(tmp_path)
    with server() as plain:
        with plain.client() as client:
            client.execute_command("ACL", "SETUSER", "ann", "on", ">another")
        for number, url in enumerate(urls(plain).values()):
            monkeypatch.setenv("FOLDLOG_REDIS_URL", url)
            for words in TALKING + (OTHERS if number == 0 else []):
                said = said_by(capfd, monkeypatch, *words)
                assert_hidden(said)
            monkeypatch.delenv("FOLDLOG_REDIS_URL")
            said = said_by(capfd, monkeypatch, "status", "--check", "--redis", url)
            assert "Redis at " in said
            assert_hidden(said)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("wrong password", ["demo", "--limit", "1"]),
        ("in the query", ["up", "--log-format", "json"]),
        ("not quoted", ["up"]),
    ],
)
def test_a_pipeline_that_does_not_start_prints_no_password(
    tmp_path: Path, kind: str, words: list[str]
) -> None:
    with server() as plain:
        settings = Settings(data=tmp_path / "data", redis_url=urls(plain)[kind])
        failed = foldlog(settings, *words)
    assert failed.returncode == 1
    said = failed.stdout + failed.stderr
    assert "Redis at redis://" in said
    assert_hidden(said + kept(settings))


def test_a_running_pipeline_prints_no_password_also_when_it_is_not_let_in_again(
    tmp_path: Path, up: Callable[..., Up]
) -> None:
    with server("--requirepass", PASSWORD) as closed:
        url = closed.url(f":{quote(PASSWORD, safe='')}")
        settings = Settings(data=tmp_path / "data", redis_url=url, export_interval_s=0)
        pipeline = up(settings)
        banner = pipeline.wait_until_it_says_so()
        assert f"redis://127.0.0.1:{closed.port}" in banner
        with pipeline.ready() as producer:
            producer.send_many(shopping(50))
        pipeline.settle()
        with closed.client(PASSWORD) as client:
            client.config_set("requirepass", "another")
            client.execute_command("CLIENT", "KILL", "TYPE", "normal")
        wait_for(lambda: "away" in kept(settings) or "refuses" in kept(settings), "the outage")
        pipeline.stop()
        assert_hidden(banner + pipeline.errors() + kept(settings))


def kept(settings: Settings) -> str:
    return settings.errors.read_text() if settings.errors.exists() else ""


def test_what_cannot_be_a_url_says_how_one_is_written() -> None:
    for url in ("http://127.0.0.1", "redis://h:port", "redis://h?socket_timeout=x"):
        with pytest.raises(FoldlogError, match="cannot be read as a URL; write redis://USER"):
            Producer(url)
