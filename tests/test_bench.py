"""The benchmark measures what it says. No figure is asserted: machines differ."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.extras import driven
from pipeline.extras.bench import delays, grown, reactions, rebuilds, throughput
from pipeline.extras.bench.load import baskets, drain, fill, log_of_carts, own_redis
from pipeline.extras.bench.table import Figure, as_json
from pipeline.log.log import Log
from pipeline.operate.verify import verify
from pipeline.settings import Settings
from tests.processes import popen


@pytest.fixture(autouse=True)
def _warm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driven, "subprocess", SimpleNamespace(Popen=popen))


def test_a_ratio_is_the_figure_over_its_limit() -> None:
    assert Figure("a", 3, "s", "b", 2).ratio == 1.5
    assert Figure("a", 3, "s").ratio is None


def test_the_rate_is_taken_when_everything_is_in_the_log(tmp_path: Path) -> None:
    sent = [*baskets(10_000)]
    with own_redis(tmp_path) as settings:
        fill(settings.reachable_redis, sent)
        assert drain(settings.reachable_redis) > 0
        assert throughput.drained(settings, sent).rate > 0
        log = Log.open(settings.events, domain="shop")
        held = [i for p in range(4) for t in log.read(p) for i in t["command_id"].to_pylist()]
    assert sorted(held) == sorted(command["command_id"] for command in sent)


def test_made_up_carts_are_a_log_like_any_other(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path)
    log_of_carts(settings, 10_000, length=10, items=5, checked_out=True)
    figures = rebuilds._of("test", settings)
    assert [bool(figure.ratio) for figure in figures] == [bool(f.limit) for f in figures]
    assert all(figure.value > 0 for figure in figures)
    assert not verify(settings, lambda *_: None).wrong


def test_readers_see_every_reaction_and_none_before_it_is_committed(tmp_path: Path) -> None:
    published = reactions._until_published(tmp_path, 1)
    written = reactions._reactions(Settings(data=tmp_path))
    committed = [row.at - sent_at for sent_at, row in written]
    sent = 3 * reactions.ORDERS_A_SECOND  # to its order, to the stock, and back
    assert len(published) == len(committed) >= sent
    assert all(0 <= c < p for c, p in zip(committed, published, strict=True))


@pytest.mark.parametrize("size", [3_000, pytest.param(30_000, marks=pytest.mark.long)])
def test_throughput_delays_and_growth_are_figures_that_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(delays, "WARM_UP_S", 0.5)
    figures = throughput.measure(tmp_path, size)
    figures += delays.measure(tmp_path, size / 30_000)
    figures += grown.measure_flat(tmp_path, [size, 2 * size], size)
    written = json.loads(json.dumps(as_json(figures)))
    assert all(row["value"] > 0 for row in written["figures"])
    assert len({row["what"] for row in written["figures"]}) == len(figures)
