"""How far long work is, on a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.progress import Progress, ProgressColumn


def progress(*columns: ProgressColumn | str) -> Progress:
    """A bar for a person who watches, on standard error, gone when the work is done.

    Standard error that is no terminal gets nothing.
    """
    console = Console(stderr=True)
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
