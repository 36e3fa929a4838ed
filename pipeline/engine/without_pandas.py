"""Keeps pandas, which we do not use, out of processes that are ours."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType

import pyarrow as pa


class _NoPandas(MetaPathFinder):
    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> None:
        if name == "pandas":
            raise ImportError("not yet")


def start_without_pandas() -> None:
    """Let pyarrow look for pandas now, and find none. For the start of a program.

    pyarrow imports pandas at the first `pa.array`, where it is installed. That took 0.43 s of CPU
    and 47 MB in each process (pyarrow 26, pandas 3.1), and the first command waited for it. Later,
    a domain's code can import pandas, and `to_pandas()` imports it.
    """
    if "pandas" in sys.modules:
        return
    nobody = _NoPandas()
    sys.meta_path.insert(0, nobody)
    try:
        pa.array([])
    finally:
        sys.meta_path.remove(nobody)
