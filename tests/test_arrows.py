"""The rooms' arrows point one way: a file imports what stands on a lower floor, or beside it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("ingest", "projections", "pipeline")
MODULES = sorted(
    path.relative_to(ROOT).as_posix()
    for room in ROOMS
    for path in (ROOT / room).rglob("*.py")
    if path.name != "__init__.py" or path.read_text().count("import ")
)

FLOORS = [
    ["ingest"],
    ["projections"],
    ["pipeline/lock.py"],
    ["pipeline/paths.py"],
    ["pipeline/settings.py"],
    ["pipeline/messages.py"],
    ["pipeline/log"],
    ["pipeline/decide"],
    ["pipeline/replay"],
    ["pipeline/scenario.py", "pipeline/react"],
    ["pipeline/deployment.py"],
    ["pipeline/feed"],
    ["pipeline/engine"],
    ["pipeline/work", "pipeline/read"],
    ["pipeline/health"],
    ["pipeline/operate"],
    ["pipeline/extras"],
    ["pipeline/cli"],
]
"""Files and folders, the lowest first. What stands on one floor may not know each other, but for
the files of one folder."""

MAY_NOT_IMPORT = {
    "ingest": {"duckdb", "bytewax"},
    "projections": {"redis", "bytewax"},
    "pipeline": {"bytewax"},
}
MAY_IMPORT_BYTEWAX = {
    "ingest/source.py",
    "pipeline/engine/program.py",
    "pipeline/engine/sink.py",
    "pipeline/operate/read.py",
    "pipeline/operate/work.py",
    "pipeline/read/dataflow.py",
    "pipeline/read/source.py",
    "pipeline/work/dataflow.py",
}
OF_THE_WRITE_SIDE = {
    "ingest/columns/declared.py",
    "ingest/crash.py",
    "ingest/domain.py",
    "ingest/durable.py",
    "ingest/errors.py",
    "ingest/outcome.py",
    "ingest/rights.py",
    "ingest/envelope.py",
}
"""What the read side knows of it."""


def imported(path: str) -> set[str]:
    """What a file imports: packages by name, and files of ours by path."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: say which module it is, from the top"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            ours = module_file(name) or module_file(name.rpartition(".")[0])
            found.add(ours or name.partition(".")[0])
    return found - {path}


def module_file(name: str) -> str | None:
    base = ROOT / name.replace(".", "/")
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if name.partition(".")[0] in ROOMS and path.exists():
            return path.relative_to(ROOT).as_posix()
    return None


def place(path: str) -> tuple[int, str] | None:
    """The floor that a file stands on, and the file or folder that is named there."""
    for number, floor in enumerate(FLOORS):
        for named in floor:
            if path == named or path.startswith(f"{named}/"):
                return number, named
    return None


def test_every_file_stands_on_a_floor() -> None:
    homeless = [p for p in MODULES if p != "pipeline/__init__.py" and place(p) is None]
    assert homeless == []


def test_every_place_has_a_file() -> None:
    places = {found[1] for path in MODULES if (found := place(path))}
    assert [named for floor in FLOORS for named in floor if named not in places] == []


@pytest.mark.parametrize("path", MODULES)
def test_a_file_imports_what_is_below_or_beside_it(path: str) -> None:
    here = place(path)
    assert here is not None
    above = []
    for other in imported(path):
        there = place(other)
        if there is not None and there != here and there[0] >= here[0]:
            above.append(other)
    assert above == []


@pytest.mark.parametrize("path", MODULES)
def test_only_the_adapters_know_the_engine(path: str) -> None:
    refused = MAY_NOT_IMPORT[path.partition("/")[0]]
    if path in MAY_IMPORT_BYTEWAX:
        refused = refused - {"bytewax"}
    assert not imported(path) & refused


def test_of_the_write_side_the_read_side_knows_only_what_it_must() -> None:
    known = {
        other
        for path in MODULES
        if path.startswith("projections/")
        for other in imported(path)
        if other.startswith("ingest/")
    }
    assert known <= OF_THE_WRITE_SIDE


def test_the_system_knows_nothing_of_carts() -> None:
    shipped_with_the_domain = ("ingest/shop/", "pipeline/extras/")
    naming_the_default = ("ingest/producer.py", "ingest/async_producer.py")
    for path in MODULES:
        if not path.startswith(shipped_with_the_domain + naming_the_default):
            of_the_shop = {p for p in imported(path) if p.startswith("ingest/shop/")}
            assert of_the_shop == set(), path
