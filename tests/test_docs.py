"""The pages do not lie: what they name is there, and what comes from the code is as the code is."""

from __future__ import annotations

import importlib
import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from pipeline.cli import app
from tests.pages import PAGES, ROOT, blocks

DECISIONS = sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md"))
ROOMS = ("ingest", "pipeline", "projections", "tests", "notebooks", "docs")
README_LINES_MAX = 180


def prose(page: str) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", (ROOT / page).read_text(), flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """What a link may name in a page, as GitHub makes it of the headings."""
    headings = re.findall(r"^#+ (.*)$", prose(str(page.relative_to(ROOT))), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    lost = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        name, _, anchor = link.partition("#")
        if "://" in link:
            continue
        there = (ROOT / page).parent / name if name else ROOT / page
        if not there.exists() or (anchor and anchor not in anchors(there.resolve())):
            lost.append(link)
    assert lost == []


@pytest.mark.parametrize("page", PAGES)
def test_every_file_and_module_of_ours_that_a_page_names_is_there(page: str) -> None:
    names = re.findall(r"`([^`\n]+)`", prose(page))
    paths = [name for name in names if re.fullmatch(rf"({'|'.join(ROOMS)})/[\w./-]*", name)]
    found = (
        re.fullmatch(r"((?:ingest|pipeline|projections)(?:\.\w+)+)(?:\(.*\))?", n) for n in names
    )
    dotted = [name[1] for name in found if name is not None]
    lost = [path for path in paths if not (ROOT / path).exists()]
    assert lost + [name for name in dotted if not is_there(name)] == []


def is_there(name: str) -> bool:
    """Whether a dotted name is a module, or something in one."""
    module, _, attribute = name.rpartition(".")
    try:
        return hasattr(importlib.import_module(module), attribute) or bool(
            importlib.util.find_spec(name)
        )
    except ModuleNotFoundError:
        return False


@pytest.mark.parametrize("page", PAGES)
def test_what_is_not_run_as_the_page_says_has_a_mark_that_says_why(page: str) -> None:
    for block in blocks(page):
        if not block.mark:
            continue
        if by := re.fullmatch(r"run by (tests/test_\w+\.py)", block.mark):
            assert page in (ROOT / by[1]).read_text(), f"{by[1]} does not name {page}"
        else:
            assert re.fullmatch(r"not run: \w.*", block.mark), block.mark


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "generate", ROOT / "docs" / "reference" / "generate.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_generated_pages_are_what_the_code_says() -> None:
    stale = [path for path, text in generator().pages().items() if path.read_text() != text]
    assert stale == [], "run python docs/reference/generate.py"


def test_each_word_of_the_command_line_is_in_the_guides() -> None:
    guides = "".join((ROOT / page).read_text() for page in PAGES if "/reference/" not in page)
    for word in app.registered_commands:
        assert word.callback is not None
        assert f"foldlog {word.name or word.callback.__name__}" in guides


def test_the_readme_is_two_screens_and_leads_to_every_page() -> None:
    readme = (ROOT / "README.md").read_text()
    assert readme.count("\n") <= README_LINES_MAX
    reached, to_read = set(), [ROOT / "README.md"]
    while to_read:
        page = to_read.pop()
        reached.add(page.relative_to(ROOT).as_posix())
        for link in re.findall(r"\]\(([^)\s#]+\.md)", page.read_text()):
            there = (page.parent / link).resolve()
            if there.relative_to(ROOT).as_posix() not in reached:
                to_read.append(there)
    assert set(PAGES) - reached == set()


def test_decisions_are_numbered_dated_and_say_what_follows_from_them() -> None:
    assert DECISIONS
    for number, path in enumerate(DECISIONS, 1):
        text = path.read_text()
        assert path.name.startswith(f"{number:04}-")
        assert text.startswith(f"# {number}. "), path.name
        assert re.search(r"^\d{4}-\d\d-\d\d$", text, re.MULTILINE), path.name
        assert "**Consequences.**" in text, path.name
