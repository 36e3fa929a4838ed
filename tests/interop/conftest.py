"""Tools of others, in `.interop/`; where one cannot be installed, its tests are skipped at home."""

from __future__ import annotations

import os
import shutil
import subprocess
import venv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import pytest

from pipeline.settings import Settings
from tests.interop.shop import FILLED
from tests.running import Up

FOLDER = Path(__file__).parent.parent.parent / ".interop"
PROGRAMS = Path(__file__).parent
INSTALL_S = 300


def cannot(what: str) -> NoReturn:
    """In CI, what cannot be installed is a failure."""
    if os.environ.get("CI") == "true":
        pytest.fail(what)
    pytest.skip(what)


def installed(words: Sequence[str | Path], cwd: Path) -> None:
    try:
        subprocess.run(
            words, cwd=cwd, check=True, capture_output=True, text=True, timeout=INSTALL_S
        )
    except (OSError, subprocess.SubprocessError) as error:
        cannot(f"cannot install: {error} {getattr(error, 'stderr', '') or ''}")


@pytest.fixture(scope="session")
def node() -> Callable[..., str]:
    """Runs a program of this folder with Node; what it printed."""
    if not shutil.which("node") or not shutil.which("npm"):
        cannot("there is no Node on PATH")
    FOLDER.mkdir(exist_ok=True)
    for file in [*PROGRAMS.glob("*.js"), PROGRAMS / "package.json"]:
        shutil.copy(file, FOLDER)
    installed(["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts"], FOLDER)

    def run(program: str, *words: object, stdin: str = "") -> str:
        ran = subprocess.run(
            ["node", program, *map(str, words)],
            cwd=FOLDER, input=stdin, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stderr
        assert ran.stderr == ""
        return ran.stdout

    return run


@pytest.fixture(scope="session")
def dbt() -> Path:
    """In an environment of its own, with its own DuckDB: it wants older packages than we do."""
    home = FOLDER / "dbt"
    if not (home / "bin" / "dbt").exists():
        venv.create(home, with_pip=True, clear=True)
        pip = [home / "bin" / "python", "-m", "pip", "install", "--quiet"]
        installed([*pip, "--only-binary", ":all:", "dbt-duckdb>=1.9"], FOLDER)
    return home / "bin" / "dbt"


@pytest.fixture
def filled(settings: Settings, up: Callable[..., Up]) -> Up:
    """A pipeline that runs and has published a few carts."""
    pipeline = up(settings)
    with pipeline.ready() as producer:
        producer.send_many(FILLED)
    pipeline.settle()
    return pipeline
