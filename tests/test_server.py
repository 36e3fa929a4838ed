"""The embedded server: one program by rule, and no folder of another one opened empty."""

from __future__ import annotations

import json
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
import redis

from ingest import crash
from ingest.errors import NotAvailable
from ingest.server import EmbeddedServer, find_server
from ingest.server_data import Program, claim
from ingest.server_socket import embedded_url
from pipeline.settings import Settings
from tests.running import Up, foldlog, read
from tests.shopping import check, shopping

STREAM = "{shop-0}:commands"
VALKEY = Program("valkey", "9.1.2")


@pytest.fixture(autouse=True)
def _bundled(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests are about the bundled server, also where the others run on another one."""
    monkeypatch.delenv("FOLDLOG_REDIS_SERVER", raising=False)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedServer]:
    """Not started yet; its folder is there."""
    (tmp_path / "redis").mkdir()
    found = EmbeddedServer(tmp_path)
    yield found
    found.stop()


def append_only(commands: list[dict[str, object]]) -> bytes:
    """The one file in which a Redis before 7 keeps commands that wait in `STREAM`."""
    said: list[tuple[str, ...]] = [("SELECT", "0")]
    for number, command in enumerate(commands, 1):
        said.append(("XADD", STREAM, f"17-{number}", "command", json.dumps(command)))
    return b"".join(
        b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words)
        for words in ([word.encode() for word in words] for words in said)
    )


def script(path: Path, says: str) -> Path:
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)
    return path


def everything(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_server_on_the_path_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("redis-server", "valkey-server"):
        script(tmp_path / name, "Redis server v=7.0.15")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert tmp_path not in find_server().parents
    monkeypatch.setenv("FOLDLOG_REDIS_SERVER", "redis-server")
    with pytest.raises(NotAvailable, match="redis-server is no program"):
        find_server()


def test_another_server_is_used_only_where_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = tmp_path / "another"
    named.symlink_to(find_server())
    monkeypatch.setenv("FOLDLOG_REDIS_SERVER", str(named))
    assert find_server() == named == Settings().redis_server
    server = EmbeddedServer(tmp_path)
    server.keep_running()
    server.stop()
    assert json.loads((tmp_path / "redis" / "server.json").read_text())["program"] == "valkey"


@pytest.mark.parametrize("named", ["nowhere", "pyproject.toml", "/tmp", "/bin/true"])
def test_what_is_named_and_no_server_is_one_line(tmp_path: Path, named: str) -> None:
    settings = Settings(data=tmp_path / "data", redis_server=Path(named))
    refused = foldlog(settings, "up")
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1, refused.stderr
    assert Path(named).name in refused.stderr
    assert "redis-server" in refused.stderr


@pytest.mark.parametrize("crash_at", ["", "claim.to_rename", "claim.renamed"])
def test_commands_that_wait_in_the_one_file_of_an_older_redis_are_handled(
    tmp_path: Path, up: Callable[..., Up], crash_at: str
) -> None:
    settings = Settings(data=tmp_path / "data", partitions=1, export_interval_s=0)
    folder = settings.data / "redis"
    folder.mkdir(parents=True)
    commands = shopping(60)
    (folder / "appendonly.aof").write_bytes(append_only(commands))
    if crash_at:
        died = foldlog(settings, "up", environment={crash.VARIABLE: crash_at})
        assert died.returncode == crash.EXIT_CODE
    pipeline = up(settings)
    pipeline.settle()
    check(settings, commands)
    assert pipeline.stop() == 0
    assert json.loads((folder / "server.json").read_text())["program"] == "valkey"
    assert not (folder / "appendonly.aof").exists()


@pytest.mark.parametrize(
    ("claimed", "program"),
    [
        (Program("redis", "7.4.0"), VALKEY),
        (Program("redis", "8.0.1"), VALKEY),
        (Program("valkey", "9.2.0"), VALKEY),
        (Program("valkey", "10.0"), VALKEY),
        (Program("keydb", "6.3.4"), VALKEY),
        (VALKEY, Program("redis", "7.0.15")),
        (VALKEY, Program("redis", "99.0")),
        (Program("redis", "7.2.4"), Program("redis", "7.0.15")),
        (None, Program("redis", "6.2.14")),  # it does not look into the folder of files
    ],
)
def test_a_folder_that_a_server_may_not_read_is_refused_and_left_as_it_is(
    server: EmbeddedServer, tmp_path: Path, claimed: Program | None, program: Program
) -> None:
    server.keep_running()
    with redis.Redis.from_url(server.url) as client:
        client.xadd(STREAM, {"command": "waits"})
    server.stop()
    (tmp_path / "redis" / "server.json").unlink()
    if claimed:
        (tmp_path / "redis" / "server.json").write_text(json.dumps(asdict(claimed)))
    before = everything(tmp_path)
    other = script(tmp_path / "other", f"{program.program.title()} server v={program.version} x")
    other_server = EmbeddedServer(tmp_path, other)
    with pytest.raises(NotAvailable, match="may not read") as refused:
        other_server.keep_running()
    assert str(claimed or "redis 7.0") in str(refused.value)
    other.unlink()
    assert everything(tmp_path) == before


@pytest.mark.parametrize(
    ("writer", "program"),
    [
        (Program("redis", "6.2.14"), VALKEY),
        (Program("redis", "7.2.4"), VALKEY),
        (Program("valkey", "9.1.1"), VALKEY),
        (VALKEY, VALKEY),
        (Program("valkey", "9.9.0"), Program("valkey", "9.10.0")),
        (Program("redis", "7.0.15"), Program("redis", "8.0.0")),
    ],
)
def test_a_later_server_goes_on_with_what_an_earlier_one_wrote(
    tmp_path: Path, writer: Program, program: Program
) -> None:
    claim(tmp_path, writer)
    claim(tmp_path, program)
    assert json.loads((tmp_path / "server.json").read_text())["version"] == program.version


def test_a_folder_that_two_servers_have_written_is_refused_and_names_the_newer_one(
    server: EmbeddedServer, tmp_path: Path
) -> None:
    server.keep_running()
    server.stop()
    single = tmp_path / "redis" / "appendonly.aof"
    single.write_bytes(append_only(shopping(3)))
    for at, order in ((1, "appendonlydir/ and the older appendonly.aof"),
                      (4_000_000_000, "appendonly.aof and the older appendonlydir/")):  # fmt: skip
        os.utime(single, (at, at))
        before = everything(tmp_path)
        with pytest.raises(NotAvailable, match="two servers") as refused:
            server.keep_running()
        assert order in str(refused.value)
        assert everything(tmp_path) == before


def test_a_server_that_was_killed_while_it_carried_a_folder_over_goes_on(
    server: EmbeddedServer, tmp_path: Path
) -> None:
    folder = tmp_path / "redis"
    (folder / "appendonlydir").mkdir()
    manifest = folder / "appendonlydir" / "appendonly.aof.manifest"
    manifest.write_text("file appendonly.aof seq 1 type b\n")
    (folder / "appendonly.aof").write_bytes(append_only(shopping(3)))
    server.keep_running()
    with redis.Redis.from_url(server.url) as client:
        assert client.xlen(STREAM) == 3


def test_a_server_that_does_not_start_says_why(server: EmbeddedServer, tmp_path: Path) -> None:
    server.keep_running()
    server.stop()
    next((tmp_path / "redis" / "appendonlydir").glob("*.base.*")).write_bytes(b"REDIS9999?")
    with pytest.raises(NotAvailable, match=r"\(valkey .*Bad file format") as refused:
        server.keep_running()
    assert "\n" not in str(refused.value)


@pytest.fixture
def far(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A data directory whose path is too long for a socket, and a temporary folder of its own."""
    with tempfile.TemporaryDirectory(prefix="foldlog-", dir="/tmp") as short:
        monkeypatch.setattr(tempfile, "tempdir", short)
        yield Path(short) / ("x" * 60) / ("y" * 60)


def test_a_socket_in_the_temporary_folder_lies_in_a_folder_of_its_own_user(far: Path) -> None:
    server = EmbeddedServer(far)
    server.keep_running()
    try:
        path = Path(server.url.removeprefix("unix://"))
        assert path.parent.parent == Path(tempfile.gettempdir())
        assert path.parent.stat().st_mode == stat.S_IFDIR | 0o700
        with redis.Redis.from_url(embedded_url(far)) as client:
            assert client.ping()
    finally:
        server.stop()
    assert not path.exists()


@pytest.mark.parametrize("trap", ["open to all", "a link", "a file"])
def test_a_folder_that_somebody_else_could_have_made_is_not_used(far: Path, trap: str) -> None:
    folder = Path(tempfile.gettempdir()) / f"foldlog-{os.getuid()}"
    if trap == "open to all":
        folder.mkdir()
        folder.chmod(0o777)
    elif trap == "a link":
        (folder.parent / "elsewhere").mkdir(mode=0o700)
        folder.symlink_to(folder.parent / "elsewhere")
    else:
        folder.touch()
    with pytest.raises(NotAvailable, match="no folder for this user alone"):
        EmbeddedServer(far)
    with pytest.raises(NotAvailable, match="no folder for this user alone"):
        embedded_url(far)


def test_a_data_directory_may_have_any_name(tmp_path: Path, up: Callable[..., Up]) -> None:
    settings = Settings(data=tmp_path / "a b%41#é", export_interval_s=0)
    pipeline = up(settings)
    with pipeline.ready() as producer:
        producer.send_many(shopping(20))
    pipeline.settle()
    assert len(read(settings.published, "outcomes")["outcomes"]) > 0
