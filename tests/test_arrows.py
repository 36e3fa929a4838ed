"""The rooms' arrows point one way."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = [p for room in ("ingest", "projections", "pipeline") for p in (ROOT / room).glob("*.py")]

MAY_NOT_IMPORT = {
    "ingest": {"pipeline", "projections", "duckdb"},
    "projections": {"pipeline", "redis", "bytewax"},
    "pipeline": set(),
}
MAY_IMPORT_BYTEWAX = {
    "ingest/source.py",
    "pipeline/follow.py",
    "pipeline/program.py",
    "pipeline/read.py",
    "pipeline/sinks.py",
    "pipeline/work.py",
}


def imported(path: Path) -> set[str]:
    """The top-level packages that a module imports, and of ours also the modules."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found | {name.partition(".")[0] for name in found}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_a_room_imports_only_what_it_may(path: Path) -> None:
    assert not imported(path) & MAY_NOT_IMPORT[path.parent.name]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_only_the_adapters_know_the_engine(path: Path) -> None:
    if f"{path.parent.name}/{path.name}" not in MAY_IMPORT_BYTEWAX:
        assert "bytewax" not in imported(path)


def test_of_the_write_side_the_read_side_knows_only_what_it_must() -> None:
    known = {
        name
        for path in (ROOT / "projections").glob("*.py")
        for name in imported(path)
        if name.startswith("ingest.")
    }
    assert known <= {
        "ingest.columns",
        "ingest.domain",
        "ingest.errors",
        "ingest.outcome",
        "ingest.schema",
    }


def test_the_system_knows_nothing_of_carts() -> None:
    shipped_with_the_domain = {"ingest/cart.py", "pipeline/demo.py"}
    naming_the_default = {"ingest/producer.py"}
    for path in MODULES:
        name = f"{path.parent.name}/{path.name}"
        if name not in shipped_with_the_domain | naming_the_default:
            assert "ingest.cart" not in imported(path), name
