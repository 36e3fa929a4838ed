"""The notebooks show what an independent computation says, from a real pipeline's files."""

from __future__ import annotations

import html
import importlib.util
import subprocess
import sys
from collections import Counter, defaultdict
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from marimo._cli.cli import main as marimo

from ingest.errors import NotAvailable
from pipeline.extras import baskets
from pipeline.settings import Settings
from tests import oracle
from tests.app import NOTEBOOKS
from tests.pages import blocks
from tests.running import Up

NAMES = sorted(path.name for path in NOTEBOOKS.glob("*.py"))


@pytest.fixture(scope="module")
def commands() -> list[dict[str, Any]]:
    """The demo's first baskets, and one at the year's other end."""
    late = {"cart_id": "late", "occurred_at": "2017-12-24T15:30:00Z"}
    return [
        *(command for chunk in baskets.commands(3000) for command in chunk),
        {"type": "AddProduct", "command_id": "late-0", **late,
         "product_id": "unheard of", "quantity": 2, "unit_price_cents": 12345},
        {"type": "CheckOut", "command_id": "late-1", **late},
        {"type": "CheckOut", "command_id": "late-2", **late},
    ]  # fmt: skip


@pytest.fixture(scope="module")
def expected(commands: list[dict[str, Any]]) -> oracle.Expected:
    return oracle.expect(commands)


@pytest.fixture(scope="module")
def data(commands: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = Settings(data=tmp_path_factory.mktemp("notebooks") / "data")
    pipeline = Up(settings)
    try:
        with pipeline.ready() as producer:
            producer.send_many(commands)
        pipeline.settle()
        pipeline.stop()
    finally:
        pipeline.kill()
    return settings.data


def run(name: str) -> tuple[str, dict[str, Any]]:
    """All that a notebook shows, and its variables."""
    spec = importlib.util.spec_from_file_location(f"notebook_{name}", NOTEBOOKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    outputs, variables = module.app.run()
    texts = (html.unescape(getattr(output, "text", str(output))) for output in outputs)
    return "\n".join(texts), dict(variables)


@pytest.fixture(autouse=True)
def _on_that_data(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOLDLOG_DATA", str(data))


def departments() -> dict[str, str]:
    rows = pq.read_table(baskets.transactions().with_name("products.parquet")).to_pylist()
    return {str(row["product_id"]): row["department"].lower() for row in rows}


def test_the_first_look_counts_everything_that_was_sent(expected: oracle.Expected) -> None:
    shown, variables = run("first_look")
    outcomes = Counter(outcome for outcome, _ in expected.outcomes.values())
    assert dict(variables["by_outcome"].rows()) == outcomes
    assert f"{outcomes['accepted']:,}" in shown
    statuses: dict[str, list[float]] = defaultdict(lambda: [0, 0, 0])
    for status, units, cents, _ in expected.carts.values():
        for i, more in enumerate((1, units, cents)):
            statuses[status][i] += more
    answered = {s: [n, units, round(d * 100)] for s, n, units, d in variables["by_status"].rows()}
    assert answered == statuses
    newest = variables["newest"].row(0, named=True)
    assert newest["event_type"] in ("ProductAdded", "CheckedOut")
    assert set(variables["relations"]["relation"]) >= {"events", "carts", "sales_daily"}


def test_sales_are_those_of_the_commands_by_day_department_product_and_hour(
    commands: list[dict[str, Any]], expected: oracle.Expected
) -> None:
    shown, variables = run("sales")
    total = sum(cents for _, _, cents in expected.daily.values())
    assert f"${total / 100:,.0f}" in shown

    department_of = departments()
    sold: Counter[tuple[date, str]] = Counter()
    by_product: Counter[str] = Counter()
    for (product, day), (_, _, cents) in expected.daily.items():
        sold[date.fromisoformat(day), department_of.get(product, "unknown")] += cents
        by_product[product] += cents
    by_department: Counter[str] = Counter()
    for (_, department), cents in sold.items():
        by_department[department] += cents

    listed = {d: round(dollars * 100) for d, dollars in variables["by_department"].rows()}
    assert listed == dict(by_department.most_common(len(listed)))
    assert "unknown" in listed
    charted = {(d.date(), n): round(dollars * 100) for d, n, dollars in variables["by_day"].rows()}
    assert sum(charted.values()) == total
    first, last = min(sold)[0], max(sold)[0]
    every_day = {first + timedelta(days) for days in range((last - first).days + 1)}
    assert {day for day, _ in charted} == every_day  # zero where nothing was sold
    named = {key: cents for key, cents in charted.items() if key[1] != "all others"}
    assert len({department for _, department in named}) == 6
    assert named == {key: sold[key] for key in named}

    top = variables["top_products"]
    ids = [product.rpartition(" · ")[2] for product in top["product"]]
    assert [round(dollars * 100) for dollars in top["dollars"]] == [by_product[i] for i in ids]
    assert by_product[ids[-1]] == sorted(by_product.values())[-len(ids)]

    hours: Counter[tuple[str, int]] = Counter()
    for command in commands:
        at = datetime.fromisoformat(command["occurred_at"])
        accepted = expected.outcomes[command["command_id"]][0] == "accepted"
        hours[f"{at:%A}", at.hour] += command["type"] == "CheckOut" and accepted
    days = Counter(f"{day:%A}" for day in {day for day, _ in sold})
    averages = {key: n / days[key[0]] for key, n in hours.items() if n}
    assert {(w, h): n for w, h, n in variables["by_hour"].rows() if n} == pytest.approx(averages)


def test_without_the_demos_package_sales_have_ids_and_one_line_that_says_so(
    monkeypatch: pytest.MonkeyPatch, expected: oracle.Expected
) -> None:
    def missing() -> Path:
        raise NotAvailable("not installed")

    monkeypatch.setattr(baskets, "transactions", missing)
    shown, variables = run("sales")
    assert "Products have no names here" in shown
    assert set(variables["top_products"]["product"]) <= {product for product, _ in expected.daily}


def test_an_investigation_shows_a_carts_life_the_past_and_the_reasons(
    expected: oracle.Expected,
) -> None:
    shown, variables = run("investigate")
    cart_id = max(expected.carts, key=lambda i: (expected.carts[i][2], i))
    assert variables["cart_id"].value == cart_id
    status, units, cents, version = expected.carts[cart_id]
    happenings = variables["happenings"]
    assert [h.version for h in happenings] == list(range(1, version + 1))
    last = {"status": status, "units": units, "value_cents": cents}
    assert happenings[-1].state == last

    until = variables["day"].value.isoformat()
    past = [cents for (_, day), (_, _, cents) in expected.daily.items() if day <= until]
    assert 0 < len(past) < len(expected.daily)
    assert f"${sum(past) / 100:,.2f}" in shown

    why = Counter(o for o in expected.outcomes.values() if o[0] != "accepted")
    assert {(o, r): n for o, r, n, _, _ in variables["reasons"].rows()} == why
    assert {reason for _, reason in why} >= {"the cart is checked out"}
    assert "late-2" in variables["rejected"]["command_id"].to_list()


def test_the_live_page_shows_the_last_state_when_nothing_runs(expected: oracle.Expected) -> None:
    shown, variables = run("live")
    assert variables["commands"] == len(expected.outcomes)
    rejections = sum(outcome != "accepted" for outcome, _ in expected.outcomes.values())
    assert variables["rejections"] == rejections
    assert variables["cents"] == sum(cents for _, _, cents in expected.daily.values())
    assert "Redis does not answer" in shown


@pytest.mark.parametrize("name", NAMES)
def test_where_nothing_is_published_a_notebook_says_what_to_do(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOLDLOG_DATA", str(tmp_path / "none"))
    page_path = tmp_path / "page.html"
    words = ["export", "html", str(NOTEBOOKS / name), "--no-include-code", "-o", str(page_path)]
    ran = CliRunner().invoke(marimo, words)
    page = page_path.read_text()
    assert "Nothing is published in" in page
    assert "make demo" in page
    assert "Traceback" not in page + ran.output


def test_the_note_on_other_tools_runs_and_they_agree(
    data: Path, expected: oracle.Expected, tmp_path: Path
) -> None:
    (tmp_path / "data").symlink_to(data)
    found = [block.text for block in blocks("notebooks/README.md")]
    assert len(found) == 3
    total = sum(cents for _, _, cents in expected.daily.values())
    for block in found:
        ran = subprocess.run(
            [sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True, timeout=60
        )
        assert ran.returncode == 0, ran.stderr
        assert f"{total / 100:.2f}" in ran.stdout, block
