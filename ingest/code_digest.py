"""A digest of the code that a state and its row depend on: nothing made by older rules is kept.

The domain's own modules are followed by what they import: wherever an `import` stands, also in a
function, and wherever the files lie, also in an installed package. What counts of a module is its
syntax tree: a comment, a docstring or another layout changes nothing.

A package that another distribution has installed counts by its version. The standard library does
not count, nor does Foldlog, but for how rows become events. What no syntax shows is not seen: a
module that is imported by a computed name, a file or a variable that the rules read.
"""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from hashlib import sha256
from importlib import metadata
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ingest.domain import Domain

_FOLDLOG = ("ingest", "pipeline", "projections")

_NOT_RULES = {
    "ingest", "ingest.aggregate", "ingest.annotations", "ingest.command", "ingest.domain",
    "ingest.errors", "ingest.events", "ingest.policy",
}  # fmt: skip
"""What every domain is written with: no state changes with these. `ingest` itself only hands on."""

_DECODING = tuple(
    f"ingest.columns.{name}"
    for name in ("arrays", "column", "declared", "derived", "plain", "record")
)
"""What makes an event of a row, and an event normal before `evolve` sees it."""


def code_digest(domain: Domain) -> str:
    """Equal for as long as the domain makes the same states and rows of the same events."""
    roots = {cls.__module__ for cls in domain.events.values()}
    for kind in domain.aggregates:
        roots |= {type(kind.initial).__module__, kind.row_type.__module__, _module_of(kind.evolve)}
        if kind.row:
            roots.add(_module_of(kind.row))
    if domain.module:
        roots.add(domain.module)
    digest = sha256(repr((sorted(domain.events), domain.upcasts)).encode())
    ours = ((name, module_digest(name)) for name in _DECODING)
    for name, content in sorted({*ours, *_followed(roots)}):
        digest.update(f"{name}\0{content}\0".encode())
    return digest.hexdigest()


def module_digest(name: str) -> str:
    """Of one module, without what it imports; empty where it has no file."""
    return _read(name)[0]


def _module_of(rule: Callable[..., Any]) -> str:
    while isinstance(rule, partial):
        rule = rule.func
    return str(getattr(rule, "__module__", ""))


def _followed(roots: Iterable[str]) -> Iterator[tuple[str, str]]:
    """All that counts: a module and its digest, or a distribution and its version."""
    roots = {name for name in roots if _top(name) not in sys.stdlib_module_names}
    tops = {_top(name) for name in roots}
    own = {distribution for top in tops for distribution in _distributions(top)}
    waiting = [name for root in roots for name in _with_packages(root)]
    seen = {*waiting, *_NOT_RULES}
    others: set[str] = set()
    while waiting:
        name = waiting.pop()
        top = _top(name)
        if top not in tops and (brought := [d for d in _distributions(top) if d not in own]):
            yield from brought
            others.add(top)
            waiting = [n for n in waiting if _top(n) != top]
            continue
        content, imported = _read(name)
        if content:
            yield name, content
        new = {package for other in imported for package in _with_packages(other)} - seen
        seen |= new
        waiting += [n for n in new if _top(n) not in {*others, *sys.stdlib_module_names}]


def _top(name: str) -> str:
    return name.partition(".")[0]


def _with_packages(name: str) -> list[str]:
    """The module, and the packages that importing it imports first; of Foldlog's, itself alone."""
    if _top(name) in _FOLDLOG:
        return [name]
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts) + 1)]


def _read(name: str) -> tuple[str, set[str]]:
    """A module's digest, and the names of what may be modules that it imports."""
    spec = _spec(name)
    if spec is None or spec.origin is None or not spec.has_location:
        return "", set()
    content: bytes = getattr(spec.loader, "get_data", _bytes_at)(spec.origin)
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):  # a compiled one
        return sha256(content).hexdigest(), set()
    package = name if spec.submodule_search_locations is not None else name.rpartition(".")[0]
    imported = {found for node in ast.walk(tree) for found in _imported(node, package)}
    for node in ast.walk(tree):
        for part in ("body", "orelse", "finalbody"):
            if isinstance(found := getattr(node, part, None), list):
                setattr(node, part, [s for s in found if not _is_text(s)])
    return sha256(ast.dump(tree).encode()).hexdigest(), imported


def _bytes_at(path: str) -> bytes:
    return Path(path).read_bytes()


def _is_text(statement: ast.AST) -> bool:
    """A docstring, of whatever."""
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _imported(node: ast.AST, package: str) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        try:
            source = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
        except ImportError:  # beyond the top package: it would fail when it ran
            return
        yield source
        yield from (f"{source}.{alias.name}" for alias in node.names)


def _spec(name: str) -> ModuleSpec | None:
    """Where a module is, found without importing anything."""
    loaded: ModuleSpec | None = getattr(sys.modules.get(name), "__spec__", None)
    if loaded is not None:
        return loaded
    parent = name.rpartition(".")[0]
    if not parent:
        return importlib.util.find_spec(name) if name and name not in sys.modules else None
    within = _spec(parent)
    where = within.submodule_search_locations if within else None
    return PathFinder.find_spec(name, where) if where is not None else None


def _distributions(top: str) -> list[tuple[str, str]]:
    """What has installed this top-level package beside where it is: names and versions."""
    spec = _spec(top)
    if spec is None or top in _FOLDLOG or top in sys.stdlib_module_names:
        return []
    places = spec.submodule_search_locations
    folder = str(Path(next(iter(places)) if places else spec.origin or "").parent)
    found = [*metadata.distributions(name=top, path=[folder])]
    if not found:  # PyYAML brings yaml
        found = [d for d in metadata.distributions(path=[folder]) if top in _brought_by(d)]
    return [(d.metadata["Name"], d.version) for d in found]


def _brought_by(distribution: metadata.Distribution) -> set[str]:
    listed = distribution.read_text("top_level.txt")
    if listed:
        return {*listed.split()}
    return {path.parts[0].partition(".")[0] for path in distribution.files or ()}
