"""Named places to die: before and after every step that leaves something behind.

`FOLDLOG_CRASH_AT=commit.linked:2` ends the process, as if the power went, the second time that it
comes by `commit.linked`. Unset, a point costs a comparison. `tests/test_crash_points.py` dies at
each of them, and fails when a step has none.
"""

from __future__ import annotations

import os

VARIABLE = "FOLDLOG_CRASH_AT"
EXIT_CODE = 137

_name, _, _times = os.environ.get(VARIABLE, "").partition(":")
_left = int(_times or 1)


def point(name: str) -> None:
    """Die here, if it is the time and the place."""
    if name == _name:
        _die_when_due()


def _die_when_due() -> None:
    global _left
    _left -= 1
    if _left == 0:
        os._exit(EXIT_CODE)
