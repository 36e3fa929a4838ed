"""Our processes do without pandas, also where it is installed; a domain's code need not."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

from pipeline.settings import Settings
from tests.running import Up, foldlog

ADD = {
    "type": "AddProduct",
    "cart_id": "7",
    "product_id": "milk",
    "quantity": 2,
    "unit_price_cents": 89,
}
IMPORTS_PANDAS = "import pyarrow as pa; pa.array([1]); import sys; assert 'pandas' in sys.modules"
IS_LET_BE = """
import sys
import pyarrow as pa
from pipeline.engine.without_pandas import start_without_pandas

before = list(sys.meta_path)
start_without_pandas()
assert sys.meta_path == before
assert pa.array([1, None, 2]).null_count == 1
assert "pandas" not in sys.modules

assert pa.table({"a": [1]}).to_pandas()["a"].to_list() == [1]
import pandas
assert pa.Table.from_pandas(pandas.DataFrame({"a": [1]})).to_pylist() == [{"a": 1}]
"""
LOADED_BEFORE = """
import pandas
import pyarrow as pa
from pipeline.engine.without_pandas import start_without_pandas

start_without_pandas()
assert pa.array(pandas.Series([1, None])).null_count == 1
"""


@pytest.mark.parametrize("code", [IMPORTS_PANDAS, IS_LET_BE, LOADED_BEFORE])
def test_arrow_looks_for_pandas_once(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_pipeline_loads_no_pandas(settings: Settings, up: Callable[..., Up]) -> None:
    pipeline = up(settings, cold=True)
    with pipeline.ready() as producer:
        producer.execute(ADD, timeout=30)
    pipeline.settle()
    programs = [*pipeline.workers(), *pipeline.readers()]
    assert len(programs) == 2
    for program in programs:
        files = [mapped.path for mapped in program.memory_maps()]
        assert any("pyarrow" in path for path in files)
        assert not [path for path in files if "/pandas/" in path]


def test_commands_load_no_pandas(settings: Settings, up: Callable[..., Up]) -> None:
    pipeline = up(settings)
    with pipeline.ready() as producer:
        producer.execute(ADD, timeout=30)
    pipeline.settle()
    profiled = {"PYTHONPROFILEIMPORTTIME": "1"}
    for words in (["rebuild", "--all"], ["verify"], ["history", "7"], ["query", "FROM carts"]):
        told = foldlog(settings, *words, environment=profiled, cold=True)
        names = [line.rpartition("|")[2].strip() for line in told.stderr.splitlines()]
        assert "pyarrow" in names
        assert "pandas.core" not in names, words
