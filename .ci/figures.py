"""Figures of how the code reads, over the three rooms without benchmark, demo and starter.

    python .ci/figures.py

Exit code 1 where a public name has no docstring, or a function does not say what it returns.
"""

from __future__ import annotations

import ast
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
ROOMS = ("ingest", "pipeline", "projections")
EXTRAS = ROOT / "pipeline" / "extras"

Function = ast.FunctionDef | ast.AsyncFunctionDef


def public(body: list[ast.stmt], around: str) -> Iterator[tuple[str, ast.ClassDef | Function]]:
    """Classes and functions whose names do not begin with `_`, with those in classes."""
    for node in body:
        if isinstance(node, ast.ClassDef | Function) and not node.name.startswith("_"):
            yield f"{around}{node.name}", node
            if isinstance(node, ast.ClassDef):
                yield from public(node.body, f"{around}{node.name}.")


def needs_docstring(node: ast.ClassDef | Function) -> bool:
    """A property, method or protocol of one line says all that it is by its name and types."""
    if isinstance(node, ast.ClassDef):
        return True
    return node.end_lineno is not None and node.end_lineno - node.lineno > 2


def main() -> int:
    paths = sorted(p for room in ROOMS for p in (ROOT / room).rglob("*.py"))
    paths = [p for p in paths if EXTRAS not in p.parents]
    lengths, functions, silent, untyped, names = [], [], [], [], 0
    for path in paths:
        text = path.read_text()
        tree = ast.parse(text)
        where = path.relative_to(ROOT)
        lengths.append((len(text.splitlines()), where))
        for name, node in public(tree.body, ""):
            names += 1
            if needs_docstring(node) and not ast.get_docstring(node):
                silent.append(f"{where}:{node.lineno}: {name} has no docstring")
        for node in ast.walk(tree):
            if isinstance(node, Function):
                functions.append(((node.end_lineno or 0) - node.lineno + 1, where, node.name))
                if node.returns is None:
                    untyped.append(
                        f"{where}:{node.lineno}: {node.name} does not say what it returns"
                    )
    sql = [p for room in ROOMS for p in (ROOT / room).rglob("*.sql") if EXTRAS not in p.parents]
    lines = sum(n for n, _ in lengths) + sum(len(p.read_text().splitlines()) for p in sql)
    median = statistics.median(n for n, _ in lengths)
    count, longest = max(lengths)
    of_function, function_path, function = max(functions)
    print(f"lines of Python and SQL  {lines:,} (goal: below 7,000)")
    print(f"files                    {len(lengths)}, median {median:.0f} lines (goal: 110)")
    print(f"longest file             {count} lines, {longest} (goal: 300)")
    print(f"longest function         {of_function} lines, {function_path}:{function} (goal: 60)")
    print(f"public names             {names}, {len(silent)} without a docstring (goal: 0)")
    print(
        f"functions                {len(functions)}, {len(untyped)} without a return type (goal: 0)"
    )
    for line in (*silent, *untyped):
        print(line)
    return 1 if silent or untyped else 0


if __name__ == "__main__":
    sys.exit(main())
