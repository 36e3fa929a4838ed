"""Writes the reference pages that the code itself can tell: command line, settings, metrics.

    python docs/reference/generate.py

A test fails when a page differs from what this script makes of the code.
"""

from __future__ import annotations

import ast
import inspect
import types
import typing
from collections.abc import Iterator, Mapping
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Any

from annotated_types import Ge
from typer.models import ArgumentInfo, CommandInfo

from pipeline import settings
from pipeline.cli import app
from pipeline.settings import Settings

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
MADE = "<!-- Made by docs/reference/generate.py from the code. Change the code, not this page. -->"
METRIC_CLASSES = {"Counter", "Gauge", "Histogram", "GaugeMetricFamily"}


def pages() -> dict[Path, str]:
    """Each generated page, and what has to stand in it."""
    return {
        HERE / "command-line.md": "\n".join(command_line()) + "\n",
        HERE / "settings.md": "\n".join(settings_page()) + "\n",
        HERE / "metrics.md": "\n".join(metrics()) + "\n",
    }


def table(head: list[str], rows: list[list[str]]) -> Iterator[str]:
    """A table in Markdown."""
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"


def command_line() -> Iterator[str]:
    """One section for each word, in the order of `foldlog --help`."""
    yield from (
        "# The command line", "", MADE, "",
        "`foldlog WORD --help` shows the same. Each word is one job. A flag comes before the"
        " environment, the",
        "environment before the file `.env` of the current folder, and that before the default:"
        " see [settings](settings.md).",
        "`foldlog --install-completion` teaches your shell to complete words and flags.", "",
        "An error that a user can cause is one line that says what to do. The exit code is 0 when"
        " all went well, 1 for a",
        "failure, and 2 for wrong use.", "",
    )  # fmt: skip
    words = [(word.name or _function(word).__name__, word) for word in app.registered_commands]
    rows = [[f"[`{name}`](#foldlog-{name})", _about(word)[0]] for name, word in words]
    yield from table(["word", "what it does"], rows)
    for name, word in words:
        yield from ("", f"## foldlog {name}", "", *_about(word), "")
        yield from table(["argument or flag", "values", "default", "what it is for"], _flags(word))
        yield from ("", str(word.epilog))


def _function(word: CommandInfo) -> Any:
    assert word.callback is not None
    return word.callback


def _about(word: CommandInfo) -> list[str]:
    return str(inspect.getdoc(_function(word))).splitlines()


def _flags(word: CommandInfo) -> list[list[str]]:
    hints = typing.get_type_hints(_function(word), include_extras=True)
    rows = []
    for name, parameter in inspect.signature(_function(word)).parameters.items():
        kind, info = typing.get_args(hints[name])
        if isinstance(info, ArgumentInfo):
            names = [info.metavar or name.upper()]
        else:
            # In `Annotated`, Typer takes an option's first name for its default.
            declared = [info.default, *(info.param_decls or ())]
            names = [n for n in declared if isinstance(n, str)] or [f"--{name.replace('_', '-')}"]
        default = "" if parameter.default in (None, False) else _shown(parameter.default)
        if parameter.default is inspect.Parameter.empty:
            default = "required"
        called = " ".join(f"`{n}`" for n in names)
        rows.append([called, _values(kind, info), default, str(info.help)])
    return rows


def _shown(value: Any) -> str:
    return f"`{value.value if isinstance(value, Enum) else value}`"


def _values(kind: Any, info: Any) -> str:
    """What may be given, in words."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        kind = next(part for part in typing.get_args(kind) if part is not type(None))
    if typing.get_origin(kind) is list:
        inner = _values(typing.get_args(kind)[0], info)
        return f"any number of: {inner}" if inner else "any number"
    if isinstance(kind, type) and issubclass(kind, Enum):
        return ", ".join(f"`{member.value}`" for member in kind)
    least = "" if getattr(info, "min", None) is None else f" from {info.min}"
    named = {int: "an integer", float: "a number", Path: "a path", datetime: "a time"}
    return named.get(kind, "") + least


def settings_page() -> Iterator[str]:
    """One row for each setting, in the order of the code."""
    yield from (
        "# Settings", "", MADE, "",
        "Foldlog takes a setting from a flag, else from `FOLDLOG_…` in the environment, else from"
        " the file `.env` of the",
        "current folder (a line `NAME=VALUE` for each), else it is the default.", "",
    )  # fmt: skip
    meanings = _attribute_docstrings(Path(str(settings.__file__)), "Settings")
    rows = []
    for name, found in Settings.model_fields.items():
        default = "" if found.default is None else f"`{found.default}`"
        meaning = " ".join(meanings[name].split())
        limits = _limits(found.annotation, found)
        rows.append([f"`FOLDLOG_{name.upper()}`", limits, default, meaning])
    yield from table(["setting", "values", "default", "what it is for"], rows)


def _limits(annotation: Any, found: Any) -> str:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        annotation = next(p for p in typing.get_args(annotation) if p is not type(None))
    if typing.get_origin(annotation) is typing.Literal:
        return ", ".join(f"`{value}`" for value in typing.get_args(annotation))
    spoken = {int: "an integer", float: "a number", Path: "a path", str: "text"}[annotation]
    for limit in found.metadata:
        spoken += f" from {limit.ge}" if isinstance(limit, Ge) else f" to {limit.le}"
    return spoken


def _attribute_docstrings(path: Path, name: str) -> Mapping[str, str]:
    """The text below each attribute of a class."""
    found = {}
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            for field, text in zip(node.body, node.body[1:], strict=False):
                if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
                    assert isinstance(field.target, ast.Name)
                    found[field.target.id] = str(ast.literal_eval(text.value))
    return found


def metrics() -> Iterator[str]:
    """One row for each metric, wherever in `pipeline` it is made."""
    yield from (
        "# Metrics", "", MADE, "",
        "`foldlog up --metrics-port 9400` serves metrics for Prometheus on 127.0.0.1: the read side"
        " on port 9400, worker `i`",
        "on port 9401 + `i`. `FOLDLOG_METRICS_HOST` names another address.", "",
    )  # fmt: skip
    yield from table(["metric", "kind", "what it says"], sorted(_metrics()))
    yield from (
        "",
        "The label `kind` is `accepted`, `rejected`, `unreadable` or `duplicate`. Durations are in"
        " seconds. A gauge is absent",
        "while its value cannot be found out, for instance while Redis does not answer. A histogram"
        " comes as `_bucket`,",
        "`_sum` and `_count`. Each program also serves the Python client's own metrics of its"
        " process, such as",
        "`process_resident_memory_bytes` and `process_cpu_seconds_total`. No metric holds a"
        " command's payload.",
    )


def _metrics() -> Iterator[list[str]]:
    for path in sorted((ROOT / "pipeline").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
                continue
            if node.func.id in METRIC_CLASSES and node.args:
                name, about = (ast.literal_eval(argument) for argument in node.args[:2])
                kind = node.func.id.removesuffix("MetricFamily").lower()
                lists = (n for n in [*node.args[2:], *(k.value for k in node.keywords)])
                labels = next((ast.literal_eval(n) for n in lists if isinstance(n, ast.List)), [])
                full = f"{name}{'_total' if kind == 'counter' else ''}"
                yield [f"`{full}{{{', '.join(labels)}}}`" if labels else f"`{full}`", kind, about]


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text)
        print(path.relative_to(ROOT))
