"""Who may read what: the owner alone, or one group; and what a reader needs, which is to read."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from ingest.server import EmbeddedServer
from ingest.server_socket import socket_path
from pipeline.log.log import READERS, Log
from pipeline.settings import Settings
from tests.running import DEADLINE_S, InProcess, Up, entry, foldlog, wait_for
from tests.shopping import shopping

GROUP = 54_321 if os.geteuid() == 0 else os.getgroups()[-1]
NOBODY = 65_534

AS_ANOTHER = """
import os, sys
from pipeline.cli import main

def run():
    try:
        main()
    except SystemExit as ended:
        return ended.code

sys.argv[0] = "foldlog"
asked = sys.stdout
sys.stdout = sys.stderr = open(os.devnull, "w")
run()  # all modules are loaded then, which the other user may have no right to
sys.stdout, sys.stderr = asked, sys.__stderr__
os.setgroups([int(group) for group in os.environ["GROUPS"].split()])
os.setgid(65534)
os.setuid(65534)
sys.exit(run())
"""


def as_another(
    settings: Settings, *words: str, groups: str = str(GROUP)
) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user who owns nothing, in some groups."""
    return subprocess.run(
        [sys.executable, "-P", "-c", AS_ANOTHER, *words],
        env={**os.environ, **settings.as_environment(), "GROUPS": groups},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )


@contextmanager
def everybody_may() -> Iterator[None]:
    """The laxest umask, for what is started meanwhile."""
    before = os.umask(0)
    try:
        yield
    finally:
        os.umask(before)


def modes(folder: Path) -> dict[str, int]:
    """The rights of everything in a folder, and of itself as `.`."""
    found = {path.relative_to(folder): path.lstat() for path in (folder, *folder.rglob("*"))}
    return {str(path): stat.S_IMODE(s.st_mode) for path, s in found.items()}


def groups(folder: Path) -> dict[str, int]:
    return {str(p.relative_to(folder)): p.lstat().st_gid for p in (folder, *folder.rglob("*"))}


def run_through(settings: Settings, up: Callable[..., Up], seed: int) -> None:
    """A pipeline that commits, publishes, compacts, exports, takes snapshots and says a warning."""
    pipeline = up(settings)
    with pipeline.ready() as producer:
        commands = [
            c | {"command_id": f"{seed}{i}"} for i, c in enumerate(shopping(500, seed=seed))
        ]
        for at in range(0, len(commands), 25):
            producer.send_many(commands[at : at + 25])
    pipeline.settle()
    pipeline.workers()[0].kill()
    wait_for(lambda: "is started again" in pipeline.errors(), "the kill to be noticed")
    pipeline.settle()
    for word in ("compact", "export"):
        done = foldlog(settings, word)
        assert done.returncode == 0, done.stderr
    assert pipeline.stop() == 0, pipeline.errors()
    assert (settings.data / "errors.jsonl").exists()


def test_the_data_directory_is_for_its_owner_alone_whatever_the_umask(
    tmp_path: Path, up: Callable[..., Up]
) -> None:
    settings = Settings(data=tmp_path / "data", export_interval_s=0, batch_max=10)
    with everybody_may():
        settings.data.mkdir()  # it was there before, and open to all
        run_through(settings, up, 0)
    found = modes(settings.data)
    assert len(found) > 50
    assert {path: oct(mode) for path, mode in found.items() if mode & 0o077} == {}


def test_a_group_may_read_the_log_the_published_file_and_the_exports_and_nothing_else(
    tmp_path: Path, up: Callable[..., Up]
) -> None:
    private = Settings(data=tmp_path / "data", export_interval_s=0, batch_max=10)
    with everybody_may():
        run_through(private, up, 0)
        run_through(private.model_copy(update={"group": str(GROUP)}), up, 1)
    found, whose = modes(private.data), groups(private.data)
    assert found["."] == 0o2710
    readable = ("events", "kept", "parquet", "read_models.duckdb", "lock", "programs")
    shared = {path for path in found if path.startswith(readable)}
    for path in shared - {"events/_compaction.lock"}:
        assert found[path] == (0o2750 if (private.data / path).is_dir() else 0o640), path
    assert {whose[path] for path in shared} == {GROUP}
    assert {path for path in shared if found[path] & 0o027} == set()
    names = {path.partition("/")[0] for path in found} - {*readable, "."}
    assert {"redis", "snapshots", "writer.duckdb", "errors.jsonl"} <= names
    assert {name for name in names if found[name] & 0o077} == set()


def test_a_group_that_is_none_or_not_ours_is_one_line(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path, group="no-such-group")
    InProcess(tmp_path).writer.close()
    done = foldlog(settings, "compact")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "there is no group no-such-group" in done.stderr


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A folder that other users may pass through, as they may not pytest's own."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_user_of_the_group_sees_that_a_pipeline_is_healthy_and_its_log_whole(
    reachable: Path, up: Callable[..., Up]
) -> None:
    server = EmbeddedServer(reachable / "own")
    server.keep_running()
    for path in (reachable / "own", reachable / "own" / "redis"):
        path.chmod(0o711)
    socket_path(reachable / "own").chmod(0o777)
    settings = Settings(data=reachable / "data", redis_url=server.url, export_interval_s=0,
                        group=str(GROUP))  # fmt: skip
    try:
        pipeline = up(settings)
        with pipeline.ready() as producer:
            producer.send_many(shopping(200))
        pipeline.settle()
        healthy = as_another(settings, "status", "--check")
        assert (healthy.returncode, healthy.stderr) == (0, "")
        state = as_another(settings, "status", "--json")
        assert json.loads(state.stdout)["healthy"], state.stderr
        verified = as_another(settings, "verify")
        assert verified.returncode == 0, verified.stderr
        asked = as_another(
            settings, "query", "SELECT count(*) AS n FROM outcomes", "--format", "csv"
        )
        assert asked.stdout == f"n\n{len({c['command_id'] for c in shopping(200)})}\n", asked.stderr
        subscribed = as_another(settings, "subscribe", "--no-follow")
        events = foldlog(settings, "query", "SELECT count(*) FROM events", "--format", "csv")
        assert subscribed.stdout.count("\n") == int(events.stdout.split()[1]), subscribed.stderr
        stranger = as_another(settings, "status", groups="")
        assert (stranger.returncode, stranger.stderr.count("\n")) == (1, 1)
        assert "Permission denied" in stranger.stderr
    finally:
        server.stop()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_what_another_user_reads_stays(reachable: Path) -> None:
    log = Log.create(reachable / "events", partitions=1, domain="shop")
    for path in (log.folder, log.folder / READERS):
        path.chmod(0o755 if path.is_dir() else 0o644)
    with ExitStack() as reads:
        os.seteuid(NOBODY)
        try:
            reads.enter_context(log.reading())
        finally:
            os.seteuid(0)
        with log.removing() as allowed:
            assert not allowed
    with log.removing() as allowed:
        assert allowed


def read_only(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command where a folder is mounted read-only."""
    mount = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'
    command = ["unshare", "--map-root-user", "--mount", "sh", "-c", mount, str(folder), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S)


@pytest.mark.parametrize("lock", [True, False])
def test_a_read_only_copy_can_be_looked_at_and_verified(tmp_path: Path, lock: bool) -> None:
    if not shutil.which("unshare") or read_only(tmp_path, "true").returncode:
        pytest.skip("nothing can be mounted here")
    pipeline = InProcess(tmp_path)
    for at in range(0, 60, 5):
        commands = shopping(60)[at : at + 5]
        pipeline.decide(0, [entry(at + i, c) for i, c in enumerate(commands)])
    pipeline.flush()
    pipeline.publish()
    pipeline.writer.close()
    if not lock:
        (tmp_path / "events" / "_readers.lock").unlink()
    flags = ["--data", str(tmp_path)]
    ours = [sys.executable, "-P", "-m", "pipeline.cli"]
    assert read_only(tmp_path, "touch", str(tmp_path / "new")).returncode != 0
    subscribe = ["subscribe", "--no-follow", "--since", "2023-01-01"]
    for words in (["verify"], ["status", "--redis", "redis://127.0.0.1:1"], subscribe):
        done = read_only(tmp_path, *ours, *words, *flags)
        assert done.returncode == 0, done.stderr
