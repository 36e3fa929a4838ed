"""Real parts for tests: a redis-server on a socket, pipelines that end with the test."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ingest.client import connect
from ingest.keys import partitions_key
from ingest.server import EmbeddedServer
from pipeline.log.log import Log
from pipeline.settings import Settings
from tests.processes import Program
from tests.running import Up, start
from tests.shopping import LIVED


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[EmbeddedServer]:
    """A redis-server of the test's own, apart from any pipeline."""
    server = EmbeddedServer(tmp_path / "own")
    server.keep_running()
    yield server
    server.stop()


@pytest.fixture
def settings(tmp_path: Path, redis_server: EmbeddedServer) -> Settings:
    return Settings(
        data=tmp_path / "data",
        redis_url=redis_server.url,
        workers=1,
        export_interval_s=0,
        publish_interval_ms=250,
    )


@pytest.fixture
def announced(settings: Settings, redis_server: EmbeddedServer) -> Settings:
    """A new log, and a Redis that knows its partitions."""
    Log.create(settings.events, partitions=4, domain="shop")
    with connect(redis_server.url) as client:
        client.set(partitions_key("shop"), 4)
    return settings


@pytest.fixture(scope="session")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data directory of a pipeline that has handled `LIVED` in small commits, and stopped."""
    data = tmp_path_factory.mktemp("lived") / "data"
    pipeline = Up(Settings(data=data, workers=1, batch_max=50, export_interval_s=0))
    try:
        with pipeline.ready() as producer:
            producer.send_many(LIVED)
        pipeline.settle()
        assert pipeline.stop() == 0, pipeline.errors()
    finally:
        pipeline.kill()
    return data


@pytest.fixture
def handled(lived: Path, settings: Settings) -> None:
    """A copy of it, and a Redis that is empty: all commands are in the log."""
    shutil.copytree(lived, settings.data, ignore=shutil.ignore_patterns("redis"))


@pytest.fixture
def up() -> Iterator[Callable[..., Up]]:
    """Starts pipelines; all of their processes are gone after the test."""
    pipelines: list[Up] = []

    def begin(*args: Any, **kwargs: Any) -> Up:
        pipelines.append(Up(*args, **kwargs))
        return pipelines[-1]

    yield begin
    for pipeline in pipelines:
        pipeline.kill()


@pytest.fixture
def started() -> Iterator[Callable[..., Program]]:
    """Starts one side of a pipeline by itself; it is gone after the test."""
    programs: list[Program] = []

    def begin(*args: Any, **kwargs: Any) -> Program:
        programs.append(start(*args, **kwargs))
        return programs[-1]

    yield begin
    for program in programs:
        program.kill()
        program.wait()
