"""The benchmark measures what it says. No figure is asserted: machines differ."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.extras.bench import delays, grown, rebuilds, throughput
from pipeline.extras.bench.load import baskets, drain, fill, log_of_carts, own_redis
from pipeline.extras.bench.table import Figure, as_json
from pipeline.log.log import Log
from pipeline.operate.verify import verify
from pipeline.settings import Settings


def test_a_ratio_is_the_figure_over_its_limit() -> None:
    assert Figure("a", 3, "s", "b", 2).ratio == 1.5
    assert Figure("a", 3, "s").ratio is None


def test_the_rate_is_taken_when_everything_is_in_the_log(tmp_path: Path) -> None:
    sent = [*baskets(40_000)]
    with own_redis(tmp_path) as settings:
        fill(settings.reachable_redis, sent)
        assert drain(settings.reachable_redis) > 0
        assert throughput.rate(settings, sent) > 0
        log = Log.open(settings.events, domain="cart")
        held = [i for p in range(4) for t in log.read(p) for i in t["command_id"].to_pylist()]
    assert sorted(held) == sorted(command["command_id"] for command in sent)


def test_made_up_carts_are_a_log_like_any_other(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path)
    log_of_carts(settings, 20_000, length=10, items=5, checked_out=True)
    figures = rebuilds._of("test", settings)
    assert [figure.ratio for figure in figures if figure.limit]
    assert not verify(settings, lambda *_: None).wrong


def test_every_part_gives_figures_that_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delays, "WARM_UP_S", 0.5)
    figures = throughput.measure(tmp_path, 30_000)
    figures += delays.measure(tmp_path, 1)
    figures += grown.measure_flat(tmp_path, [10_000, 20_000], 30_000)
    written = json.loads(json.dumps(as_json(figures)))
    assert all(row["value"] > 0 for row in written["figures"])
    assert len({row["what"] for row in written["figures"]}) == len(figures)
