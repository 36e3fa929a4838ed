"""A process that ends when the one that started it is gone, however that went (Linux only)."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

_BECOME = """
import ctypes, os, signal, sys
set_parent_death_signal = 1
ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)
if os.getppid() == int(sys.argv[1]):  # else the parent is gone already
    os.execv(sys.argv[2], sys.argv[2:])
"""


def with_parent(words: Sequence[str]) -> list[str]:
    """What to start instead of a program, named by its whole path, and its arguments.

    A small program asks Linux for SIGTERM when the thread that started it ends, and then becomes
    the other one. (A `preexec_fn` may wait for ever, for what a thread of the parent had locked.)
    """
    if sys.platform != "linux":
        return [*words]
    return [sys.executable, "-I", "-S", "-c", _BECOME, str(os.getpid()), *words]
