"""The pages for people, their blocks of code, and how a test does what a page says.

A block of `sh` or `python` runs in the order of its page, in the page's folder. Where a block of
`text` or `mermaid` comes right after it, that is its answer and is compared. A mark after the
language says that a block runs elsewhere or not at all:

    ```python run by tests/test_web.py
    ```sh not run: it takes four minutes
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from tests.running import DEADLINE_S, Up

ROOT = Path(__file__).parent.parent
PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    "notebooks/README.md",
    *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md")),
]

BLOCK = re.compile(
    r"^```(sh|python|sql)(| [^\n]*)\n(.*?)^```$(?:\n\n^```(?:text|mermaid)\n(.*?)^```$)?",
    re.DOTALL | re.MULTILINE,
)
PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])

Start: TypeAlias = Callable[[Path], Up]
"""Starts a pipeline as `foldlog up` in a folder does."""


@dataclass(frozen=True, slots=True)
class Block:
    page: str
    language: str
    mark: str
    text: str
    shown: str | None
    """The answer, where the page shows one right after the block."""


def blocks(page: str) -> Iterator[Block]:
    """A page's blocks of `sh`, `python` and `sql`, also those that have a mark."""
    for language, mark, text, shown in BLOCK.findall((ROOT / page).read_text()):
        yield Block(page, language, mark.strip(), text, shown or None)


def block_with(page: str, words: str) -> str:
    """The text of the one block of a page that holds some words."""
    (found,) = [block.text for block in blocks(page) if words in block.text]
    return found


def run(
    cwd: Path, *words: str, stdin: str = "", programs: str = ""
) -> subprocess.CompletedProcess[str]:
    """Output and errors together, as a terminal shows them; `programs` is a folder for PATH."""
    path = os.pathsep.join([programs, PATH]) if programs else PATH
    return subprocess.run(
        words, cwd=cwd, env={**os.environ, "PATH": path, "PYTHONPATH": ""}, input=stdin,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=DEADLINE_S,
    )  # fmt: skip


def comparable(text: str) -> str:
    """Without what no page promises: how long something took, and spaces that align it."""
    timeless = re.sub(r" +[\d.,]+ ?(/s|s\b)", r" T\1", text)
    return re.sub(r" +", " ", re.sub(r" +$", "", timeless, flags=re.MULTILINE)).strip()


class Reader:
    """Somebody who does what pages say, one page after another, in a folder of their own."""

    def __init__(self, folder: Path, start: Start, programs: str = "") -> None:
        """`programs` is a folder of programs that the reader's system has."""
        self.folder = folder
        self.pipeline: Up | None = None
        self._start = start
        self._at = folder.parent / "at"
        self._programs = programs

    def follow(self, page: str) -> None:
        """Run a page's blocks, and compare with the answers that it shows.

        A page's first `foldlog up` goes on where the pages before have one running; a second one is
        a new start.
        """
        started = False
        for block in blocks(page):
            if block.mark or block.language == "sql":
                continue
            if block.text == "foldlog up\n":
                if self.pipeline is not None and (started or block.shown):
                    assert self.pipeline.stop() == 0
                    self.pipeline = None
                started = True
                if block.shown is None:
                    self.pipeline = self.pipeline or self._start(self.folder)
                    self.pipeline.settle()
                    continue
            self._do(block)
            if self.pipeline is not None:
                self.pipeline.settle()

    def _do(self, block: Block) -> None:
        if block.language == "sh":
            shell = f'trap "pwd > {self._at}" EXIT\n{block.text}'
            ran = run(self.folder, "bash", "-euc", shell, programs=self._programs)
            self.folder = Path(self._at.read_text().strip())
        else:
            ran = run(self.folder, sys.executable, "-c", block.text, programs=self._programs)
        where = f"{block.page}:\n{block.text}\n{ran.stdout}"
        if block.shown is None:
            assert ran.returncode == 0, where
        else:
            assert comparable(ran.stdout) == comparable(block.shown), where
