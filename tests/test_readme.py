"""The README does not lie: its blocks run, in order, beside a running pipeline."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from pipeline.settings import Settings
from tests import redis_cli
from tests.running import Up, wait_for
from tests.test_cli import WORDS

README = (Path(__file__).parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"```(sh|python)\n(.*?)```", README, re.DOTALL)


def test_its_blocks_run_in_order(tmp_path: Path, up: Callable[..., Up]) -> None:
    settings = Settings(data=tmp_path / "data")
    pipeline = up(settings)
    pipeline.ready().close()
    redis_cli.put_into(tmp_path / "bin")
    path = os.pathsep.join(
        [str(Path(sys.executable).parent), os.environ["PATH"], str(tmp_path / "bin")]
    )
    printed = ""
    for language, text in BLOCKS:
        pipeline.settle()
        shell = ["bash", "-euc"] if language == "sh" else [sys.executable, "-c"]
        ran = subprocess.run(
            [*shell, text], cwd=tmp_path, env={**os.environ, "PATH": path},
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert ran.returncode == 0, f"{text}\n{ran.stdout}{ran.stderr}"
        printed += ran.stdout
    assert "rejected: the cart is empty" in printed
    assert re.search(r"7 +│ open +│ +3 │ +428", printed)
    wait_for(lambda: pipeline.process.poll() is None, "the pipeline to still run")


def test_each_word_of_the_command_line_is_in_it() -> None:
    for word in WORDS:
        assert f"foldlog {word}" in README
