"""`foldlog new`: a folder with a small domain of one's own that runs, to be changed from there.

What it writes are the files of `pipeline/starter`, which are linted, typed and tested where they
stand; only the names of the package and of the domain are put in.
"""

from __future__ import annotations

import importlib.util
import keyword
import re
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from ingest.errors import NameTaken, NotAvailable
from pipeline import starter

BESIDE_THE_PACKAGE = {
    "README.md": "README.md",
    "look.py": "look.py",
    "test_rules.py": "test_rules.py",
    "env": ".env",
    "gitignore": ".gitignore",
}
"""The starter's files that are not part of the package, and their names in the new folder."""


def new(name: str, parent: Path) -> list[Path]:
    """Write the folder `name`, with a package of that name in it; the files that it holds.

    Raises `NameTaken` where the name cannot be a new package's, `NotAvailable` where the folder
    cannot be written.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise NameTaken(
            f"{name!r} cannot be a package's name; use lower-case letters, digits and _,"
            " with a letter first"
        )
    folder = parent / name
    if folder.exists():
        raise NameTaken(f"{folder} exists already; choose another name, or another place")
    if importlib.util.find_spec(name):
        raise NameTaken(f"there is a Python package {name!r} already; choose another name")
    written = []
    try:
        for relative, source in _starter():
            path = folder / BESIDE_THE_PACKAGE.get(relative, f"{name}/{relative}")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(_named(source.read_text(), name))
            written.append(path)
    except OSError as error:
        raise NotAvailable(f"cannot write {folder}: {error.strerror}") from None
    return sorted(written)


def _starter() -> list[tuple[str, Traversable]]:
    """The starter's files by their path in it."""
    found = []
    for entry in files(starter).iterdir():
        if entry.is_file():
            found.append((entry.name, entry))
        elif entry.name == "read_models":
            found += [(f"{entry.name}/{model.name}", model) for model in entry.iterdir()]
    return found


def _named(text: str, name: str) -> str:
    return text.replace(starter.__name__, name).replace('name="starter"', f'name="{name}"')
