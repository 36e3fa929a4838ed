"""A domain of one's own: the page's blocks run in order, and what `foldlog new` writes runs."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.extras.new import new
from pipeline.settings import Settings
from tests.command_line import one_line_of
from tests.running import DEADLINE_S, Up, foldlog

ROOT = Path(__file__).parent.parent
PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])


def blocks(page: str) -> Iterator[tuple[str, str, str | None]]:
    """Language, text, and the answer where one is shown right after it."""
    block = r"```(sh|python)\n(.*?)```\n(?:\n```text\n(.*?)```\n)?"
    for found in re.finditer(block, (ROOT / "docs" / page).read_text(), re.DOTALL):
        yield found[1], found[2], found[3]


def without_times(text: str) -> str:
    """How long something took, and what it is aligned by, is not promised."""
    return re.sub(r" +", " ", re.sub(r" +[\d.,]+ ?(/s|s\b)", r" T\1", text)).strip()


def run(cwd: Path, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Output and errors together, as a terminal shows them."""
    return subprocess.run(
        words, cwd=cwd, env={**os.environ, "PATH": PATH, "PYTHONPATH": ""}, input=stdin,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=DEADLINE_S,
    )  # fmt: skip


@pytest.fixture
def up_in(up: Callable[..., Up], monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], Up]:
    """A pipeline as `foldlog up` in a folder starts it, with that folder's settings."""

    def start(folder: Path) -> Up:
        monkeypatch.chdir(folder)
        return up(Settings(data=folder / "data"), cwd=folder, cold=True)

    return start


def follow(page: str, cwd: Path, up_in: Callable[[Path], Up]) -> Path:
    """Do what a page says, and compare with what it shows; the folder where that ends."""
    pipeline, at = None, cwd / "at"
    for language, text, shown in blocks(page):
        if text == "foldlog up\n":
            if pipeline:
                assert pipeline.stop() == 0
                pipeline = None
            if shown is None:
                pipeline = up_in(cwd)
                pipeline.settle()
                continue
        if language == "sh":
            ran = run(cwd, "bash", "-euc", f'trap "pwd > {at}" EXIT\n{text}')
            cwd = Path(at.read_text().strip())
        else:
            ran = run(cwd, sys.executable, "-c", text)
        if shown is None:
            assert ran.returncode == 0, f"{text}\n{ran.stdout}"
        else:
            assert without_times(ran.stdout) == without_times(shown), text
        if pipeline:
            pipeline.settle()
    assert pipeline
    return cwd


def test_the_page_leads_from_an_empty_folder_to_a_running_domain(
    tmp_path: Path, up_in: Callable[[Path], Up]
) -> None:
    folder = follow("own-domain.md", tmp_path, up_in)
    assert "cancelled" in (folder / "look.html").read_text()


def test_a_domain_is_modelled_and_changed_as_the_page_says(
    tmp_path: Path, up_in: Callable[[Path], Up]
) -> None:
    follow("howto/model-a-domain.md", tmp_path, up_in)


def test_what_new_writes_runs_under_any_name(tmp_path: Path, up_in: Callable[[Path], Up]) -> None:
    assert run(tmp_path, "foldlog", "new", "shop2", "--aggregate", "invoice").returncode == 0
    folder = tmp_path / "shop2"
    (folder / "pipeline.py").write_text("raise ImportError('a module of the user')")
    written = [path.read_text() for path in folder.rglob("*") if path.is_file()]
    assert not [text for text in written if "starter" in text]
    assert not [text for text in written if re.search(r"[oO]rder(?!ed)|\ba[ _]invoice", text)]
    assert "passed" in run(folder, "pytest").stdout
    pipeline = up_in(folder)
    pipeline.settle()
    place = {"type": "PlaceInvoice", "invoice_id": "7", "customer_id": "ada", "amount_cents": 4200}
    sent = run(folder, "foldlog", "send", "-", "--wait", stdin=json.dumps(place))
    assert json.loads(sent.stdout)["outcome"] == "accepted"
    pipeline.settle()
    for relation in ("invoices", "customers", "money_daily"):
        found = run(folder, "foldlog", "query", f"FROM {relation}", "--format", "json").stdout
        assert "4200" in found
    assert run(folder, sys.executable, "look.py").stdout == ""
    assert run(folder, "foldlog", "verify").returncode == 0
    assert "{shop2-0}" in run(folder, "foldlog", "schema").stdout


@pytest.mark.parametrize(
    ("name", "aggregate", "plural"),
    [
        ("bookings", "booking", "bookings"),
        ("shipping", "shipping", "shippings"),
        ("parties", "party", "parties"),
        ("my_boxes", "my_box", "my_boxes"),
        ("glass", "glass", "glasses"),
        ("houses", "house", "houses"),
    ],
)
def test_what_the_rules_are_about_comes_from_the_name(
    tmp_path: Path, name: str, aggregate: str, plural: str
) -> None:
    new(name, tmp_path)
    package = tmp_path / name / name
    assert f'id_field="{aggregate}_id"' in (package / "domain.py").read_text()
    assert f'folded="{plural}"' in (package / "domain.py").read_text()
    for path in (tmp_path / name).rglob("*.py"):
        ast.parse(path.read_text())


REFUSED = {
    "Orders": "lower-case",
    "my-orders": "lower-case",
    "2nd": "lower-case",
    "class": "cannot be a package's name",
    "../orders": "cannot be a package's name",
    "json": "already",
    "projections": "already",
    "taken": "exists already",
    "customers": "'customer' means something else already",
    "x --aggregate outcome": "'outcome' means something else already",
    "x --aggregate true": "'true' cannot be what the rules are about",
    "x --aggregate Parcel": "'Parcel' cannot be what the rules are about",
}


def test_a_name_that_cannot_be_is_refused_in_one_line(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "taken").mkdir()
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    for name, complaint in REFUSED.items():
        assert complaint in one_line_of(foldlog(settings, "new", *name.split()))
        assert sorted(tmp_path.rglob("*")) == before
