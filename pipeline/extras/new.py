"""`foldlog new`: a folder with a small domain of one's own that runs, to be changed from there.

What it writes are the files of `pipeline/extras/starter`, which are linted, typed and tested where
they stand; only names are put in: the package's, the domain's, and the aggregate's for `order`.
"""

from __future__ import annotations

import importlib.util
import keyword
import re
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from ingest.errors import NameTaken, NotAvailable
from pipeline.extras import starter
from projections.model import TAKEN

BESIDE_THE_PACKAGE = {
    "README.md": "README.md",
    "look.py": "look.py",
    "test_rules.py": "test_rules.py",
    "pytest.ini": "pytest.ini",
    "env": ".env",
    "gitignore": ".gitignore",
}
"""The starter's files that are not part of the package, and their names in the new folder."""

_HISSING = ("ss", "x", "ch", "sh")
"""Words that end so have their plural with -es."""

NAME = r"[a-z][a-z0-9_]*"
NAME_SAYS = "lower-case letters, digits and _, with a letter first"


def new(name: str, parent: Path, aggregate: str | None = None) -> list[Path]:
    """Write the folder `name`, with a package of that name in it; the files that it holds.

    `aggregate` is what the domain's rules are about, in the singular; else it comes from `name`.
    Raises `NameTaken` where one of them cannot be a name, `NotAvailable` where the folder cannot be
    written.
    """
    if not re.fullmatch(NAME, name) or keyword.iskeyword(name):
        raise NameTaken(f"{name!r} cannot be a package's name; use {NAME_SAYS}")
    folder = parent / name
    if folder.exists():
        raise NameTaken(f"{folder} exists already; choose another name, or another place")
    if importlib.util.find_spec(name):
        raise NameTaken(f"there is a Python package {name!r} already; choose another name")
    texts = {relative: source.read_text() for relative, source in _starter()}
    aggregate = aggregate or _singular(name)
    if not re.fullmatch(NAME, aggregate) or keyword.iskeyword(_camel(aggregate)):
        raise NameTaken(f"{aggregate!r} cannot be what the rules are about; use {NAME_SAYS}")
    taken = _words(*texts.values()) | {*keyword.kwlist, *TAKEN}
    if aggregate != "order" and taken & {aggregate, _plural(aggregate)}:
        raise NameTaken(
            f"{aggregate!r} means something else already in what is written; say with --aggregate"
            " what the rules are about"
        )
    written = []
    try:
        for relative, text in texts.items():
            path = folder / BESIDE_THE_PACKAGE.get(relative, f"{name}/{relative}")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(_named(text, name, aggregate))
            written.append(path)
    except OSError as error:
        raise NotAvailable(f"cannot write {folder}: {error.strerror}") from None
    return sorted(written)


def _singular(name: str) -> str:
    for plural, one in (*((f"{end}es", end) for end in _HISSING), ("ies", "y"), ("ss", "ss")):
        if name.endswith(plural):
            return name.removesuffix(plural) + one
    return name.removesuffix("s")


def _plural(word: str) -> str:
    if re.search(r"[^aeiou]y$", word):
        return f"{word[:-1]}ies"
    return f"{word}es" if word.endswith(_HISSING) else f"{word}s"


def _words(*texts: str) -> set[str]:
    return {word.lower() for text in texts for word in re.findall(r"\w+", text)}


def _starter() -> list[tuple[str, Traversable]]:
    """The starter's files by their path in it."""
    found = []
    for entry in files(starter).iterdir():
        if entry.is_file():
            found.append((entry.name, entry))
        elif entry.name == "read_models":
            found += [(f"{entry.name}/{model.name}", model) for model in entry.iterdir()]
    return found


def _named(text: str, name: str, aggregate: str) -> str:
    """A file of the starter with the names put in for its own; `ordered` is no name."""
    article = "an" if aggregate[0] in "aeio" else "a"
    words = {
        "orders": _plural(aggregate),
        "order": aggregate,
        "Orders": _camel(_plural(aggregate)),
        "Order": _camel(aggregate),
    }
    text = re.sub(r"(?<![a-zA-Z])([Aa])n(?=[ _]order(?!ed))", lambda a: a[1] + article[1:], text)
    text = re.sub(r"(Orders?|(?<![a-zA-Z])orders?)(?![a-z])", lambda found: words[found[1]], text)
    return text.replace(starter.__name__, name).replace('"starter"', f'"{name}"')


def _camel(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))
