"""The command line as its users meet it."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest
import redis

from ingest.keys import command_stream, partitions_key
from ingest.server import EmbeddedServer
from pipeline.cli import app
from pipeline.settings import Settings
from tests.command_line import WORDS, one_line_of
from tests.running import InProcess, Up, foldlog

ADD = {
    "type": "AddProduct",
    "command_id": "1",
    "cart_id": "7",
    "product_id": "milk",
    "quantity": 2,
    "unit_price_cents": 89,
}


@pytest.fixture
def running(settings: Settings, up: Callable[..., Up]) -> Up:
    pipeline = up(settings)
    pipeline.ready().close()
    return pipeline


@pytest.mark.parametrize("word", WORDS)
def test_each_word_has_help_with_an_example(settings: Settings, word: str) -> None:
    shown = foldlog(settings, word, "--help")
    assert shown.returncode == 0
    assert "Example" in shown.stdout


FAILING = {
    "demo": ["--data", "FILE"],
    "new": ["Orders"],
    "up": ["--data", "FILE"],
    "work": ["--data", "FILE"],
    "read": ["--data", "FILE"],
    "send": ["-", "--redis", "nonsense"],
    "query": ["SELECT 1", "--data", "FILE"],
    "history": ["7", "--data", "FILE"],
    "subscribe": ["--data", "FILE"],
    "status": ["--data", "FILE"],
    "rebuild": ["--all", "--data", "FILE"],
    "compact": ["--data", "FILE"],
    "export": ["--data", "FILE"],
    "verify": ["--data", "FILE"],
    "restore": ["--data", "FILE"],
    "schema": ["--domain", "nowhere:x"],
    "resubmit": ["--where", "true", "--data", "FILE"],
}
"""What each word that works on something refuses."""


@pytest.mark.parametrize("word", FAILING)
def test_each_word_starts_cold_and_fails_in_one_line(
    settings: Settings, tmp_path: Path, word: str
) -> None:
    (tmp_path / "file").touch()
    words = [str(tmp_path / "file") if w == "FILE" else w for w in FAILING[word]]
    one_line_of(foldlog(settings, word, *words, cold=True))


def test_all_words_are_known_here() -> None:
    found = [c.name or c.callback.__name__ for c in app.registered_commands if c.callback]
    assert found == WORDS


def test_help_loads_nothing_that_it_does_not_show() -> None:
    code = "import sys, pipeline.cli; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    found = set(loaded.stdout.split())
    assert {"typer", "rich"} <= found, loaded.stderr
    heavy = {"bytewax", "duckdb", "pyarrow", "pydantic", "redis"}
    assert not found & heavy


def test_sent_lines_can_be_asked_about(settings: Settings, running: Up, tmp_path: Path) -> None:
    lines = "\n".join(json.dumps({**ADD, "command_id": str(i)}) for i in range(3))
    (tmp_path / "commands.jsonl").write_text(lines + "\n\n")
    sent = foldlog(settings, "send", str(tmp_path / "commands.jsonl"))
    assert (sent.returncode, sent.stdout) == (0, "sent 3 commands\n")
    running.settle()

    sql = "SELECT cart_id, units, value_cents FROM carts"
    assert "178" not in foldlog(settings, "query", sql).stdout
    table = foldlog(settings, "query", sql).stdout
    assert "534" in table
    found = csv.DictReader(io.StringIO(foldlog(settings, "query", sql, "--format", "csv").stdout))
    assert list(found) == [{"cart_id": "7", "units": "6", "value_cents": "534"}]
    as_json = foldlog(settings, "query", sql, "--format", "json").stdout
    assert json.loads(as_json) == [{"cart_id": "7", "units": 6, "value_cents": 534}]


def test_an_answer_can_be_had_as_parquet(settings: Settings, running: Up, tmp_path: Path) -> None:
    running.settle()
    words = ["query", "SELECT 42 AS answer", "--format", "parquet"]
    with open(tmp_path / "answer.parquet", "wb") as answer:
        command = [sys.executable, "-m", "pipeline.cli", *words, "--data", str(settings.data)]
        subprocess.run(command, check=True, stdout=answer)
    assert pq.read_table(tmp_path / "answer.parquet").to_pylist() == [{"answer": 42}]


def test_a_written_answer_has_the_types_of_the_question(tmp_path: Path) -> None:
    pipeline = InProcess(tmp_path, partitions=1)
    pipeline.publish()
    pipeline.writer.close()
    sql = """SELECT sum(1) AS huge, '101'::BIT AS bits, '0b7e6b2a-0000-4000-8000-00000000000a'::UUID
        AS id, '12:30:00+02'::TIMETZ AS at, [1.5::DECIMAL(4, 2)] AS list, {'a': 'x,"y'} AS struct,
        INTERVAL 1 MONTH AS month, 'a'::ENUM('a', 'b') AS letter, '{"k": [1]}'::JSON AS json"""
    for name, options in {
        "csv": "FORMAT csv, HEADER", "json": "FORMAT json, ARRAY true", "parquet": "FORMAT parquet",
    }.items():  # fmt: skip
        beside, ours = tmp_path / f"beside.{name}", tmp_path / f"ours.{name}"
        duckdb.sql(f"COPY ({sql}) TO '{beside}' ({options})")
        words = ["query", sql, "--format", name, "--data", str(tmp_path)]
        with open(ours, "wb") as answer:
            subprocess.run(
                [sys.executable, "-P", "-m", "pipeline.cli", *words], check=True, stdout=answer
            )
        if name == "parquet":
            schemas = [pq.read_schema(path) for path in (ours, beside)]
            first, second = ([(field.name, field.type) for field in s] for s in schemas)
            assert first == second
            assert duckdb.sql(f"FROM '{ours}'").fetchall() == duckdb.sql(sql).fetchall()
        else:
            assert ours.read_bytes() == beside.read_bytes()


def test_send_and_wait_prints_each_outcome_and_exits_1_if_one_is_not_accepted(
    settings: Settings, running: Up
) -> None:
    good = foldlog(settings, "send", "-", "--wait", stdin=json.dumps(ADD))
    assert good.returncode == 0
    assert json.loads(good.stdout)["outcome"] == "accepted"
    bad = foldlog(settings, "send", "-", "--wait", stdin='{"type": "CheckOut", "cart_id": "8"}')
    assert json.loads(bad.stdout)["reason"] == "the cart is empty"
    assert "1 command(s) were not accepted" in one_line_of(bad)


UNSENDABLE = {
    "{broken": "-:1: not JSON",
    "[1]": "-:1: not a JSON object",
    '{"type": "CheckOut"}': "-:1: a command needs the field cart_id",
    '{"cart_id": "7"}': "-:1: a command needs the field type, one of AddProduct, ",
    '{"type": "CheckOut", "cart_id": "7", "command_id": 7}': "-:1: a command_id is a string",
    '{"type": "CheckOut", "cart_id": "\\ud800"}': "-:1: the command cannot be JSON",
}


def test_a_line_that_cannot_be_sent_is_named(
    settings: Settings, redis_server: EmbeddedServer
) -> None:
    with redis.Redis.from_url(redis_server.url) as client:
        client.set(partitions_key("shop"), 4)
    for line, complaint in UNSENDABLE.items():
        for wait in ([], ["--wait"]):
            assert complaint in one_line_of(foldlog(settings, "send", "-", *wait, stdin=line))


def test_what_was_sent_before_a_wrong_line_is_told(
    settings: Settings, redis_server: EmbeddedServer
) -> None:
    good = json.dumps({"type": "CheckOut", "cart_id": "7"}) + "\n"
    with redis.Redis.from_url(redis_server.url) as client:
        client.set(partitions_key("shop"), 1)
        failed = foldlog(
            settings,
            "send",
            "-",
            stdin=good * 999 + "\n" + good * 5 + '{"type": "CheckOut"}\n' + good,
        )
        said = one_line_of(failed)
        assert "-:1006: a command needs the field cart_id" in said
        assert "lines from 1002 on are not sent" in said
        assert client.xlen(command_stream("shop", 0)) == 1000


def test_bytes_in_json_are_text_where_they_are_utf_8(settings: Settings, running: Up) -> None:
    broken = '{"type": "CheckOut", "cart_id": "7", "command_id": "1", "color": "grün"}'
    foldlog(settings, "send", "-", "--wait", stdin=broken)
    running.settle()
    sql = "SELECT payload, '\\xFF'::BLOB AS binary, NULL::BLOB AS nothing FROM rejections"
    shown = foldlog(settings, "query", sql, "--format", "json").stdout
    ((payload, binary, nothing),) = (row.values() for row in json.loads(shown))
    assert json.loads(payload)["color"] == "grün"
    assert (binary, nothing) == ("\\xFF", None)


def test_status_shows_positions_and_lag(settings: Settings, running: Up) -> None:
    foldlog(settings, "send", "-", "--wait", stdin=json.dumps(ADD))
    running.settle()
    shown = foldlog(settings, "status").stdout
    assert "published" in shown
    assert "up to date" in shown
    assert "partitions 0, 1, 2, 3" in shown


def test_mistakes_are_one_line(settings: Settings, tmp_path: Path) -> None:
    assert "there is no" in one_line_of(foldlog(settings, "query", "SELECT 1"))
    assert "there is no log" in one_line_of(foldlog(settings, "status"))
    assert "cannot import" in one_line_of(foldlog(settings, "up", "--domain", "nowhere:x"))
    assert "Redis at nonsense" in one_line_of(foldlog(settings, "send", "-", "--redis", "nonsense"))
    assert "module:attribute" in one_line_of(foldlog(settings, "up", "--domain", "nowhere"))
    assert "partitions" in one_line_of(foldlog(settings, "up", "--partitions", "0"), code=2)


def test_a_data_directory_that_is_a_file_is_one_line(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for words in (["status"], ["query", "SELECT 1"], ["verify"], ["up"], ["history", "7"]):
        refused = foldlog(settings, *words, "--data", str(tmp_path / "file"))
        assert str(tmp_path / "file") in one_line_of(refused)


@pytest.mark.parametrize(
    ("code", "complaint"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("def (", "invalid syntax"),
        ("import nothing_there", "nothing_there"),
        ("d = 3", "has no Domain named 'd'"),
    ],
)
def test_a_domain_that_does_not_load_is_one_line(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, complaint: str
) -> None:
    (tmp_path / "broken_domain.py").write_text(code + "\n")
    monkeypatch.chdir(tmp_path)
    shown = one_line_of(foldlog(settings, "schema", "--domain", "broken_domain:d"))
    assert complaint in shown


def test_a_wrong_setting_in_the_environment_names_it(settings: Settings) -> None:
    wrong = foldlog(settings, "status", environment={"FOLDLOG_WORKERS": "abc"})
    assert "FOLDLOG_WORKERS" in one_line_of(wrong, code=2)


def test_a_wrong_query_is_one_line(settings: Settings, running: Up) -> None:
    running.settle()
    assert "nothing_here" in one_line_of(foldlog(settings, "query", "SELECT * FROM nothing_here"))


def test_wrong_use_is_exit_code_2(settings: Settings) -> None:
    assert foldlog(settings, "send").returncode == 2
    assert foldlog(settings, "no-such-word").returncode == 2
