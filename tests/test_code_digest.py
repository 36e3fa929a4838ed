"""Rules that have changed are used from the next start on: nothing that older ones made is kept."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ingest.code_digest import _followed, code_digest
from ingest.loading import load_domain
from ingest.shop import shop
from pipeline.settings import Settings
from tests.command_line import one_line_of
from tests.domains.bank import bank
from tests.domains.shop import now, then
from tests.running import Up, foldlog, read, wait_for

RACES = '''
"""Races: how long each runner has run."""
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ingest import Aggregate, Command, Domain, Identifier, Rejected

from . import rules
from .events import Ran
from .limits import ENOUGH


@dataclass(frozen=True, slots=True)
class Row:
    total: float


class Run(Command):
    runner: Identifier
    seconds: int


def decide(total, command: Run):
    if total >= ENOUGH:
        raise Rejected("that is enough")
    return [Ran(command.seconds)]


def row(total) -> Row:
    return Row(total / 60)


runner = Aggregate(
    name="runner", key="runner", initial=0, decide=decide, evolve=partial(rules.evolve, least=0),
    table="runners", row=row,
)
races = Domain("races", (runner,), read_models=Path(__file__).parent / "sql")
'''
RULES = """
from races_common.units import A_SECOND
import handicaps

from .events import Ran


def evolve(total, event: Ran, least):
    from races.rounding import rounded

    return max(least, rounded(total + event.seconds * A_SECOND * handicaps.ALL))
"""
EVENTS = """
from ingest import event


@event
class Ran:
    seconds: int
"""
FILES = {
    "races/__init__.py": "",
    "races/domain.py": RACES,
    "races/events.py": EVENTS,
    "races/rules.py": RULES,
    "races/limits.py": "ENOUGH = 600\n",
    "races/rounding.py": "def rounded(seconds):\n    return int(seconds)\n",
    "races/unrelated.py": "ANY = 1\n",
    "races/sql/nothing.txt": "",
    "races_common/__init__.py": "",
    "races_common/units.py": "A_SECOND = 1\n",
    "handicaps.py": "ALL = 1\n",
    "races_app-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: races-app\nVersion: 1.0\n",
    "races_app-1.0.dist-info/top_level.txt": "races\nraces_common\n",
    "Handicapping-3.dist-info/METADATA": "Metadata-Version: 2.1\nName: Handicapping\nVersion: 3\n",
    "Handicapping-3.dist-info/RECORD": "handicaps.py,,\n",
}
"""As pip installs them: two packages of the domain's own distribution, and a module of another."""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of installed packages, on the path of this process and of those that it starts."""
    folder = tmp_path / "site"
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.syspath_prepend(folder)
    ours = {name.partition("/")[0].removesuffix(".py") for name in FILES}
    for name in [n for n in sys.modules if n.partition(".")[0] in ours]:
        monkeypatch.delitem(sys.modules, name)
    return folder


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("races/domain.py", "total / 60", "total / 3600"),
        ("races/domain.py", "least=0", "least=1"),
        ("races/rules.py", "max(least", "min(least"),
        ("races/limits.py", "600", "60"),
        ("races/rounding.py", "int(", "round("),
        ("races_common/units.py", "1", "1000"),
        ("races/__init__.py", "", "import races.rules\nraces.rules.evolve = None"),
        ("Handicapping-3.dist-info/METADATA", "Version: 3", "Version: 4"),
    ],
)
def test_a_change_of_anything_that_the_rules_use_is_another_digest(
    site: Path, file: str, old: str, new: str
) -> None:
    domain = load_domain("races.domain:races")
    before = code_digest(domain)
    edit(site / file, old, new)
    assert code_digest(domain) != before


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("races/limits.py", "ENOUGH = 600", "# A comment.\nENOUGH = (\n    600\n)"),
        ("races/rounding.py", "    return", '    """Whole seconds."""\n    return'),
        ("races/domain.py", "Races: how long", "Races, and how long"),
        ("races/unrelated.py", "1", "2"),
        ("races_app-1.0.dist-info/METADATA", "Version: 1.0", "Version: 2.0"),
        ("handicaps.py", "ALL = 1", "ALL = 1  # of a package that counts by its version"),
    ],
)
def test_what_changes_no_rule_leaves_the_digest_as_it_is(
    site: Path, file: str, old: str, new: str
) -> None:
    domain = load_domain("races.domain:races")
    before = code_digest(domain)
    edit(site / file, old, new)
    assert code_digest(domain) == before


def test_what_every_domain_imports_is_no_rule_and_its_own_modules_are(site: Path) -> None:
    followed = {name for name, _ in _followed({"races.domain"})}
    assert {"races.rules", "races.limits", "races.rounding", "races_common.units"} <= followed
    assert not {name for name in followed if name.startswith("ingest")}
    assert {name for name, _ in _followed({"ingest.shop.cart"})} == {
        "immutables", "ingest.shop.cart", "pydantic",
    }  # fmt: skip
    assert "ingest.shop.cart" in {name for name, _ in _followed({"tests.domains.zones"})}


def test_each_domain_has_a_digest_of_its_own_and_upcasts_are_in_it() -> None:
    assert len({code_digest(d) for d in (shop, bank, now, then)}) == 4
    assert code_digest(shop) == code_digest(shop)
    upcast, *others = now.upcasts
    columns = {name: f"{sql} + 1" for name, sql in upcast.columns.items()}
    changed = replace(now, upcasts=(replace(upcast, columns=columns), *others))
    assert code_digest(changed) != code_digest(now)


@pytest.fixture
def races(settings: Settings, site: Path) -> Settings:
    return settings.model_copy(update={"domain": "races.domain:races", "publish_interval_ms": 50})


def run(settings: Settings, number: int, seconds: int) -> dict[str, Any]:
    command = {"type": "Run", "command_id": f"c{number}", "runner": "ada", "seconds": seconds}
    sent = foldlog(settings, "send", "-", "--wait", stdin=json.dumps(command))
    assert sent.returncode == 0 or "rejected" in sent.stdout, sent.stderr
    answer: dict[str, Any] = json.loads(sent.stdout)
    return answer


def published(settings: Settings) -> float:
    """The runner's total."""
    ((_, total, *_),) = read(settings.published, "runners")["runners"]
    return float(total)


def as_the_log_says(settings: Settings) -> float:
    """The same from the log alone, by the code of now."""
    query = ["query", "--as-of", "2099-01-01", "SELECT total FROM runners", "--format", "json"]
    return float(json.loads(foldlog(settings, *query).stdout)[0]["total"])


def test_states_that_older_rules_made_are_not_used(
    races: Settings, site: Path, up: Callable[..., Up]
) -> None:
    pipeline = up(races)
    pipeline.settle()
    assert run(races, 1, 180)["outcome"] == "accepted"
    pipeline.settle()
    assert pipeline.stop() == 0, pipeline.errors()
    assert published(races) == 3.0
    edit(site / "races_common/units.py", "A_SECOND = 1", "A_SECOND = 10")
    pipeline = up(races)
    pipeline.settle()
    assert run(races, 2, 1)["outcome"] == "rejected"
    pipeline.settle()
    assert published(races) == as_the_log_says(races) == 30.0
    assert foldlog(races, "verify").returncode == 0


def test_rows_that_an_older_row_made_are_built_anew_and_until_then_nobody_says_all_is_well(
    races: Settings, site: Path, up: Callable[..., Up]
) -> None:
    pipeline = up(races)
    pipeline.settle()
    assert run(races, 1, 180)["outcome"] == "accepted"
    pipeline.settle()
    edit(site / "races/domain.py", "total / 60", "total / 3600")
    assert "runners is not built as it is declared now" in foldlog(races, "verify").stdout
    refused = one_line_of(foldlog(races, "rebuild"))
    assert "runners is not taken over: the running pipeline has other code" in refused
    assert published(races) == 3.0
    assert pipeline.stop() == 0, pipeline.errors()
    pipeline = up(races)
    wait_for(lambda: published(races) == 0.05, "the new rows")
    assert as_the_log_says(races) == 0.05
    assert pipeline.stop() == 0, pipeline.errors()
    assert "every read model is as its declaration says" in foldlog(races, "rebuild").stdout
