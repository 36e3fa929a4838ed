"""Why a declaration is refused: one line that names its file and the line in it."""

from __future__ import annotations

import re

from ingest.errors import ReadModelInvalid, one_line
from projections.model import Select, View
from projections.syntax import NOWHERE, Node, name_of


def invalid(model: Select | View, at: Node | int | str, reason: str) -> ReadModelInvalid:
    """`reason`, with the line of `at`: an expression, a byte of the text, or a word in it."""
    byte = at.get("query_location", NOWHERE) if isinstance(at, dict) else at
    if byte == NOWHERE:
        byte = name_of(at) if isinstance(at, dict) else "SELECT"
    if isinstance(byte, str):
        byte = _byte_of(byte, model.sql)
    line = model.sql.encode()[:byte].count(b"\n") + 1
    return ReadModelInvalid(f"{model.path}:{line}: {reason}")


def _byte_of(word: str, sql: str) -> int:
    """Where a word stands first in the text, or else where its SELECT begins."""
    spaced = re.sub(
        r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'",
        lambda skipped: re.sub(r"[^\n]", " ", skipped[0]),
        sql,
        flags=re.DOTALL,
    )
    for one in (word, "SELECT", "FROM"):
        if found := re.search(rf"\b{re.escape(one)}\b", spaced, re.IGNORECASE):
            return len(sql[: found.start()].encode())
    return len(sql[: len(spaced) - len(spaced.lstrip())].encode())


def refused(model: Select | View, error: Exception) -> ReadModelInvalid:
    """What DuckDB says of a file's SQL, in one line that names the file and its line."""
    reason = one_line(error)
    line = re.search(r"\bLINE (\d+)", reason, re.IGNORECASE)
    if line is None:
        return invalid(model, "SELECT", reason)
    return ReadModelInvalid(f"{model.path}:{line[1]}: {reason}")
