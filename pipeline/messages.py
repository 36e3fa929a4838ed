"""What a pipeline says: one line a happening on standard error, as text or as JSON.

Lines name ids, positions, places and numbers, never a payload. Warnings and errors are also kept in
`errors.jsonl` in the data directory, for `foldlog status`: a cache, which may be deleted.
"""

from __future__ import annotations

import json
import logging
import traceback
from collections import deque
from datetime import UTC, datetime

from ingest.errors import one_line
from pipeline.paths import Paths
from pipeline.settings import Settings

KEPT = 100
"""Errors that outlive a start of the pipeline."""

SHOWN = 5
"""Errors that `foldlog status` shows."""


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return f"{_time(record)} {record.levelname.lower()} {one_line(record.getMessage())}"


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "process": record.process,
            "message": one_line(record.getMessage()),
        }
        return json.dumps(line)


class _Kept(logging.FileHandler):
    def handleError(self, record: logging.LogRecord) -> None:
        """Standard error has the line; a full disk must not add a traceback to it."""


def set_up(settings: Settings) -> None:
    """The same for the process that watches and for its workers."""
    said = logging.StreamHandler()
    said.setFormatter(_Json() if settings.log_format == "json" else _Text())
    kept = _Kept(settings.errors, delay=True)
    kept.setLevel(logging.WARNING)
    kept.setFormatter(_Json())
    logging.basicConfig(handlers=[said, kept], level=logging.INFO)


def shorten(paths: Paths) -> None:
    """Let go of old errors; only where no other process writes."""
    if paths.errors.exists():
        paths.errors.write_text("".join(_lines(paths, KEPT)))


def last_errors(paths: Paths) -> list[dict[str, str]]:
    """The last warnings and errors, oldest first: `time`, `level`, `process`, `message`."""
    found = []
    for line in _lines(paths, SHOWN):
        try:
            found.append(json.loads(line))
        except ValueError:  # a line that a full disk has cut short
            continue
    return found


def _lines(paths: Paths, count: int) -> deque[str]:
    try:
        with open(paths.errors) as lines:
            return deque(lines, count)
    except OSError:
        return deque()


def where(error: BaseException) -> str:
    """The error's type and place, without its text, which may hold a payload."""
    frames = traceback.extract_tb(error.__traceback__)
    places = " < ".join(f"{f.filename}:{f.lineno}" for f in reversed(frames[-4:]))
    return f"{type(error).__name__} at {places}"
