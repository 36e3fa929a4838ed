"""The command line's words, and what every failure of one looks like."""

from __future__ import annotations

import subprocess

WORDS = [
    "demo", "new", "up", "work", "read", "send", "query", "history", "subscribe", "status",
    "rebuild", "compact", "export", "bench", "verify", "restore", "schema", "resubmit",
]  # fmt: skip


def one_line_of(failed: subprocess.CompletedProcess[str], code: int = 1) -> str:
    assert failed.returncode == code, failed.stderr
    assert failed.stderr.count("\n") == 1, failed.stderr
    assert "Traceback" not in failed.stderr
    return failed.stderr
