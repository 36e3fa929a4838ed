"""What analysts and services read the published file with, while the pipeline runs."""

from __future__ import annotations

import subprocess
from pathlib import Path

import duckdb
from fastapi import FastAPI
from fastapi.testclient import TestClient

import projections
from ingest.async_producer import AsyncProducer
from tests.interop.conftest import cannot
from tests.interop.shop import UNITS, added
from tests.running import Up

CARTS = "SELECT cart_id, units FROM carts ORDER BY cart_id"


def test_polars_and_pandas_read_the_published_file(filled: Up) -> None:
    with duckdb.connect(str(filled.settings.published), read_only=True) as db:
        assert dict(db.sql(CARTS).pl().iter_rows()) == UNITS
        frame = db.sql(CARTS).df()
        assert dict(zip(frame["cart_id"], frame["units"], strict=True)) == UNITS


def test_sqlalchemy_lists_and_reads_the_published_relations(filled: Up) -> None:
    try:
        import sqlalchemy as sa  # noqa: PLC0415
    except ImportError:
        cannot("there is no SQLAlchemy: pip install -e '.[interop]'")
    url = f"duckdb:///{filled.settings.published}"
    engine = sa.create_engine(url, connect_args={"read_only": True})
    with engine.connect() as connection:
        found = connection.execute(sa.text(CARTS)).all()
        assert dict(map(tuple, found)) == UNITS
        assert "carts" in sa.inspect(connection).get_view_names(schema="main")
        # Its columns are named here: what DuckDB's dialect asks for reflecting them, DuckDB lacks.
        carts = sa.table("carts", sa.column("cart_id"), sa.column("units"))
        at_least = sa.select(carts.c.cart_id).where(carts.c.units >= 6).order_by(carts.c.cart_id)
        assert connection.scalars(at_least).all() == ["cart 3", "cart 4"]
    engine.dispose()


def test_fastapi_executes_commands_and_answers_from_the_read_models(filled: Up) -> None:
    settings = filled.settings
    service = FastAPI()

    @service.post("/carts/{cart}/products")
    async def add(cart: int) -> dict[str, int]:
        async with await AsyncProducer.connect(settings.reachable_redis) as producer:
            outcome = await producer.execute(added(cart, 9), timeout=30)
        return {"partition": outcome.partition, "position": outcome.position}

    @service.get("/carts")
    def carts() -> dict[str, int]:
        with projections.connect(settings.published) as db:
            return dict(db.sql(CARTS).fetchall())

    with TestClient(service) as client:
        assert client.get("/carts").json() == UNITS
        assert client.post("/carts/1/products").json()["position"] >= 0
        filled.settle()
        assert client.get("/carts").json() == UNITS | {"cart 1": UNITS["cart 1"] + 9}


PROJECT = """
name: shop
version: "1.0"
profile: shop
model-paths: [models]
"""

PROFILE = """
shop:
  target: here
  outputs:
    here:
      type: duckdb
      path: {folder}/analysis.duckdb
      attach:
        - path: {published}
          alias: foldlog
          read_only: true
"""

SOURCES = """
sources:
  - name: foldlog
    database: foldlog
    schema: main
    tables: [{name: carts}]
models:
  - name: large_carts
    columns:
      - name: cart_id
        data_tests: [unique, not_null]
"""

MODEL = """
{{ config(materialized='table') }}
SELECT cart_id, units FROM {{ source('foldlog', 'carts') }} WHERE units >= 5
"""


def test_dbt_builds_and_tests_models_over_the_read_models(
    filled: Up, dbt: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "project"
    (folder / "models").mkdir(parents=True)
    (folder / "dbt_project.yml").write_text(PROJECT)
    profile = PROFILE.format(folder=folder, published=filled.settings.published)
    (folder / "profiles.yml").write_text(profile)
    (folder / "models" / "sources.yml").write_text(SOURCES)
    (folder / "models" / "large_carts.sql").write_text(MODEL)
    ran = subprocess.run(
        [dbt, "--no-send-anonymous-usage-stats", "build", "--profiles-dir", "."],
        cwd=folder, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout
    with duckdb.connect(str(folder / "analysis.duckdb"), read_only=True) as db:
        found = dict(db.sql("SELECT cart_id, units FROM large_carts").fetchall())
    assert found == {cart: units for cart, units in UNITS.items() if units >= 5}
