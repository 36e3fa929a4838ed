"""A mistake in the domain's code stops one partition, and says so; no command is lost by it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable

from pipeline.health.status import status
from pipeline.settings import Settings
from tests.oracle import partition_of
from tests.running import Up, foldlog, wait_for

SECRET = "the text of a customer"
IDS = [str(i) for i in range(40)]
PARTITIONS = 4
HALTED = partition_of(IDS[0], PARTITIONS)
HERE = [i for i in IDS if partition_of(i, PARTITIONS) == HALTED]


def command(number: int, id_: str, text: str = "well") -> dict[str, str]:
    return {"type": "Fail", "command_id": f"{number}-{id_}", "id": id_, "text": text}


def outcomes(settings: Settings) -> dict[str, str]:
    sql = "SELECT command_id, outcome FROM outcomes"
    found = json.loads(foldlog(settings, "query", sql, "--format", "json").stdout)
    return {row["command_id"]: row["outcome"] for row in found}


def wait_until_halted(pipeline: Up, settings: Settings, lag: int) -> None:
    def halted() -> bool:
        assert pipeline.process.poll() is None, pipeline.errors()
        now = status(settings)
        return bool(now.halted) and now.lag == lag and now.unpublished == 0

    wait_for(halted, "a partition to be halted, and the others to be done")


def test_its_partition_waits_and_is_named_the_others_go_on_and_when_it_is_mended_so_does_it(
    settings: Settings, up: Callable[..., Up]
) -> None:
    domain = "tests.domains.failing:"
    settings = settings.model_copy(update={"workers": 2, "domain": f"{domain}failing"})
    pipeline = up(settings)
    commands = [command(1, i) for i in HERE]
    commands += [command(2, HERE[0], SECRET)]
    waiting = [command(3, i) for i in HERE]
    with pipeline.ready() as producer:
        producer.send_many([*commands, *waiting])
        producer.send_many(command(4, i) for i in IDS if i not in HERE)
        wait_until_halted(pipeline, settings, lag=1 + len(waiting))
        producer.send_many(command(5, i) for i in IDS)
        wait_until_halted(pipeline, settings, lag=1 + len(waiting) + len(HERE))

    done = outcomes(settings)
    assert done.keys() == {
        *(f"1-{i}" for i in HERE),
        *(f"{n}-{i}" for n in (4, 5) for i in IDS if i not in HERE),
    }
    checked = foldlog(settings, "status", "--check")
    assert checked.returncode == 1
    assert checked.stderr.count("\n") == 1
    assert f"partition {HALTED} is halted: deciding command 2-{HERE[0]}" in checked.stderr
    assert "ValueError" in checked.stderr
    assert f"partition {HALTED} is halted" in foldlog(settings, "status").stdout
    assert pipeline.stop() == 0
    said = pipeline.errors()
    assert said.count("is halted") == 1
    assert SECRET not in said + checked.stderr + settings.errors.read_text()

    mended = up(settings.model_copy(update={"domain": f"{domain}mended"}))
    mended.settle()
    assert status(settings).halted == []
    assert foldlog(settings, "status", "--check").returncode == 0
    done = outcomes(settings)
    assert len(done) == len(commands) + len(waiting) + (len(IDS) - len(HERE)) + len(IDS)
    assert set(done.values()) == {"accepted"}
    assert mended.stop() == 0

    shutil.rmtree(settings.data / "snapshots")  # so that it evolves by the log again
    forgetful = up(settings.model_copy(update={"domain": f"{domain}forgetful"}))
    with forgetful.ready() as producer:
        producer.send_many(command(6, i) for i in IDS)
    wait_until_halted(forgetful, settings, lag=len(HERE))
    (why,) = status(settings).halted
    assert f"partition {HALTED} is halted: evolving partition {HALTED} from position" in why
    assert len(outcomes(settings)) == len(done) + len(IDS) - len(HERE)
    assert forgetful.stop() == 0
