"""SQL only asks: it writes nothing, reads no other files, loads and opens nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import duckdb
import pytest

from ingest.errors import NotAvailable
from pipeline.settings import Settings
from projections import Query, ReadModels, ask, connect
from tests.running import InProcess, foldlog

LOG_FILE = "events/partition=0/00000000000000000000.parquet"
"""The only kind of file that a query may read, and so the one that DuckDB would let it write."""

ATTACKS = [
    "COPY (SELECT 1) TO '{folder}/x.csv'",
    "COPY (SELECT 1) TO '{folder}/events/x.csv'",
    "COPY (SELECT 1) TO '{folder}/{log_file}' (FORMAT parquet, USE_TMP_FILE false)",
    "copy/**/(SELECT 1) TO '{folder}/{log_file}' (FORMAT parquet, USE_TMP_FILE false)",
    "WITH a AS (COPY (SELECT 1) TO '{folder}/{log_file}' (FORMAT parquet, USE_TMP_FILE false))"
    " FROM a",
    "EXPLAIN ANALYZE COPY (SELECT 1) TO '{folder}/{log_file}' (FORMAT parquet, USE_TMP_FILE false)",
    "PREPARE p AS COPY (SELECT 1) TO '{folder}/{log_file}' (FORMAT parquet, USE_TMP_FILE false)",
    "FROM query('COPY (SELECT 1) TO ''{folder}/{log_file}'' (FORMAT parquet, USE_TMP_FILE false)')",
    "SELECT 1; COPY (SELECT 1) TO '{folder}/x.csv'",
    "COPY (PIVOT carts ON status USING count(*)) TO '{folder}/x.csv'",
    "EXPORT DATABASE '{folder}/exported'",
    "EXPORT DATABASE '{folder}/events/exported'",
    "SELECT content FROM read_text('{folder}/secret')",
    "SELECT content FROM read_text('{folder}/events/../secret')",
    "SELECT content FROM read_blob('{folder}/*')",
    "FROM glob('{folder}/*')",
    "FROM '{folder}/other.parquet'",
    "FROM read_csv('{folder}/secret')",
    "FROM sniff_csv('{folder}/secret')",
    "IMPORT DATABASE '{folder}'",
    "ATTACH '{folder}/new.duckdb' AS n",
    "ATTACH '{folder}/events/new.duckdb' AS n",
    "DETACH read_models",
    "INSTALL httpfs",
    "LOAD httpfs",
    "LOAD '{folder}/x.duckdb_extension'",
    "FROM read_csv('http://127.0.0.1:9/x.csv')",
    "FROM read_parquet('s3://bucket/key.parquet')",
    "SET enable_external_access = true",
    "SET lock_configuration = false",
    "RESET lock_configuration",
    "SET allowed_directories = ['/']",
    "PRAGMA enable_external_access",
    "SET VARIABLE foldlog_kept = '/'",
    "CREATE TEMP TABLE t AS SELECT 1",
    "CREATE PERSISTENT SECRET s (TYPE http)",
    "DELETE FROM live.positions",
    "FROM local_name_of_python",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with one cart, beside what nobody may read."""
    folder = tmp_path_factory.mktemp("sandbox")
    pipeline = InProcess(folder, partitions=1)
    pipeline.run(
        0,
        {"type": "AddProduct", "command_id": "1", "cart_id": "7", "product_id": "tea",
         "quantity": 2, "unit_price_cents": 450},
        {"type": "CheckOut", "command_id": "2", "cart_id": "copy"},
    )  # fmt: skip
    pipeline.publish()
    pipeline.writer.close()
    (folder / "secret").write_text("top secret")
    duckdb.sql("SELECT 'top secret' AS s").write_parquet(str(folder / "other.parquet"))
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".lock"
    }


def ways(db: ReadModels) -> dict[str, Any]:
    class Typed(Query[list[Any]]):
        sql: ClassVar[str] = ""

    def typed(sql: str) -> Any:
        class Attack(Typed):
            pass

        Attack.sql = sql
        return ask(db, Attack())

    return {
        "execute": lambda sql: db.execute(sql).fetchall(),
        "sql": lambda sql: db.sql(sql).fetchall(),
        "rows": db.rows,
        "typed": typed,
    }


@pytest.mark.parametrize("attack", ATTACKS)
def test_it_is_refused_in_python_and_changes_nothing(folder: Path, attack: str) -> None:
    local_name_of_python = duckdb.sql("SELECT 1")
    before = contents(folder)
    sql = attack.format(folder=folder, log_file=LOG_FILE)
    with connect(folder / "read_models.duckdb") as db:
        for name, way in ways(db).items():
            with pytest.raises(duckdb.Error):
                pytest.fail(f"{name} answered {way(sql)}")
            assert contents(folder) == before
        assert db.rows("SELECT count(*) AS n FROM events") == [{"n": 1}]
    assert local_name_of_python.fetchall() == [(1,)]


@pytest.mark.parametrize("attack", [ATTACKS[i] for i in (2, 4, 12, 26)])
@pytest.mark.parametrize("past", [[], ["--as-of", "2100-01-01"]])
def test_on_the_command_line_it_is_one_line(folder: Path, attack: str, past: list[str]) -> None:
    before = contents(folder)
    sql = attack.format(folder=folder, log_file=LOG_FILE)
    refused = foldlog(Settings(data=folder), "query", sql, *past)
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1), refused
    assert "top secret" not in refused.stdout + refused.stderr
    assert contents(folder) == before


def test_a_condition_of_resubmit_reads_no_files(folder: Path) -> None:
    settings = Settings(data=folder)
    for where in (
        f"reason = (SELECT content FROM read_text('{folder}/secret'))",
        f"true); COPY (SELECT 1) TO '{folder}/x.csv'; SELECT (1",
    ):
        refused = foldlog(settings, "resubmit", "--where", where)
        assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
        assert not (folder / "x.csv").exists()
    shown = foldlog(settings, "resubmit", "--where", "reason = 'the cart is empty'")
    assert json.loads(shown.stdout.splitlines()[0])["cart_id"] == "copy"


def test_a_question_may_be_any(folder: Path) -> None:
    with connect(folder / "read_models.duckdb") as db:
        for sql, answer in {
            'SELECT cart_id AS "copy" FROM carts -- copy': [("7",)],
            "SELECT count(*) FROM outcomes WHERE aggregate_id = 'copy'": [(1,)],
            "PIVOT carts ON status USING sum(units)": None,
            "SHOW TABLES": None,
            "DESCRIBE carts": None,
            "SUMMARIZE carts": None,
            "EXPLAIN ANALYZE SELECT * FROM events": None,
            "WITH c AS (FROM carts) SELECT units FROM c;": [(2,)],
            "FROM rejections SELECT reason": [("the cart is empty",)],
        }.items():
            found = db.execute(sql).fetchall()
            assert found, sql
            assert answer in (None, found)
            assert len(db.sql(sql).fetchall()) == len(found)
        with pytest.raises(duckdb.PermissionException, match="2 questions"):
            db.execute("SELECT 1; SELECT 2")
        with pytest.raises(duckdb.PermissionException, match="quote a column"):
            db.execute("SELECT copy FROM carts")


def test_without_the_sandbox_it_is_duckdb_itself(folder: Path, tmp_path: Path) -> None:
    path = folder / "read_models.duckdb"
    with connect(path, sandbox=False) as db:
        assert db.rows(f"SELECT content FROM read_text('{folder}/secret')") == [
            {"content": "top secret"}
        ]
        db.newest.execute(f"COPY carts TO '{tmp_path}/carts.csv'")
        assert "7" in (tmp_path / "carts.csv").read_text()
    with connect(path) as db, pytest.raises(NotAvailable, match="sandbox=False"):
        _ = db.newest


def test_what_is_published_and_no_more_is_shown(folder: Path) -> None:
    shown = foldlog(Settings(data=folder), "query", "SHOW TABLES", "--format", "json")
    names = {row["name"] for row in json.loads(shown.stdout)}
    with duckdb.connect(str(folder / "read_models.duckdb"), read_only=True) as db:
        assert names == {name for (name,) in db.execute("SHOW TABLES").fetchall()}
