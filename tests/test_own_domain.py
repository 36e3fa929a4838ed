"""A domain of one's own: what `foldlog new` writes runs, under any name that can be."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.extras.new import new
from pipeline.settings import Settings
from tests.command_line import one_line_of
from tests.pages import ROOT, run
from tests.running import Up, foldlog


@pytest.fixture
def up_in(up: Callable[..., Up], monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], Up]:
    """A pipeline as `foldlog up` in a folder starts it, with that folder's settings."""

    def start(folder: Path) -> Up:
        monkeypatch.chdir(folder)
        return up(Settings(data=folder / "data"), cwd=folder, cold=True)

    return start


def test_what_new_writes_runs_under_any_name(tmp_path: Path, up_in: Callable[[Path], Up]) -> None:
    assert run(tmp_path, "foldlog", "new", "shop2", "--aggregate", "invoice").returncode == 0
    folder = tmp_path / "shop2"
    written = [path.read_text() for path in folder.rglob("*") if path.is_file()]
    assert not [text for text in written if "starter" in text]
    assert not [text for text in written if re.search(r"[oO]rder(?!ed)|\ba[ _]invoice", text)]
    assert "passed" in run(folder, "pytest").stdout
    (folder / "pipeline.py").write_text("raise ImportError('a module of the user')")
    pipeline = up_in(folder)
    pipeline.settle()
    place = {"type": "PlaceInvoice", "invoice_id": "7", "customer_id": "ada", "amount_cents": 4200}
    sent = run(folder, "foldlog", "send", "-", "--wait", stdin=json.dumps(place))
    assert json.loads(sent.stdout)["outcome"] == "accepted"
    pipeline.settle()
    for relation in ("invoices", "customers", "money_daily"):
        found = run(folder, "foldlog", "query", f"FROM {relation}", "--format", "json").stdout
        assert "4200" in found
    pay = {"type": "PayInvoice", "invoice_id": "7", "paid_cents": 41}
    cancel = {"type": "CancelInvoice", "invoice_id": "7"}
    for command in (pay, cancel):
        run(folder, "foldlog", "send", "-", "--wait", stdin=json.dumps(command))
    pipeline.settle()
    sql = "SELECT credit_cents FROM credits SEMI JOIN sends ON aggregate_id = customer_id"
    assert run(folder, "foldlog", "query", sql, "--format", "csv").stdout == "credit_cents\n41\n"
    assert run(folder, sys.executable, "look.py").stdout == ""
    assert run(folder, "foldlog", "verify").returncode == 0
    assert "{shop2-0}" in run(folder, "foldlog", "schema").stdout


def test_what_new_writes_passes_mypy_strict(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    cache = pytestconfig.cache.mkdir("mypy")  # of Foldlog itself, most of which is as it was
    new("bills", tmp_path, "invoice")
    ran = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent",
         f"--cache-dir={cache}", "."],
        cwd=tmp_path / "bills", env={**os.environ, "MYPYPATH": str(ROOT)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert ran.stdout == "Success: no issues found in 5 source files\n", ran.stdout + ran.stderr


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
    assert f'key="{aggregate}_id"' in (package / "domain.py").read_text()
    assert f'table="{plural}"' in (package / "domain.py").read_text()
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
