"""Read models from the log alone, beside the same SELECTs and the same evolve without Foldlog."""

from __future__ import annotations

import gc
import os
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from ingest.shop import shop
from ingest.shop.cart import State, cart, evolve
from pipeline.extras.bench.load import PARTITIONS, log_of_baskets, log_of_carts
from pipeline.extras.bench.table import Figure
from pipeline.log.log import Log
from pipeline.read.rebuild import rebuild
from pipeline.replay.decode import Decoder
from pipeline.replay.states import scan
from pipeline.settings import Settings
from projections.model import Select, read_models
from projections.relations import rows_between, with_relations
from projections.session import session


def measure(folder: Path, events: int) -> list[Figure]:
    """On the demo's baskets in files as they are committed, and on `events` made-up ones."""
    baskets = Settings(data=folder / "baskets")
    log_of_baskets(baskets)
    carts = Settings(data=folder / "carts")
    log_of_carts(carts, events, length=10, items=9, checked_out=True)
    return [*_of("the demo", baskets), *_of(f"{events / 1e6:g} M events", carts)]


def _of(title: str, settings: Settings) -> list[Figure]:
    bare = _bare_selects(settings)
    built = rebuild(settings, [], everything=True, seen=lambda *_: None)
    bare = (bare + _bare_selects(settings)) / 2
    tables = {kind.table for kind in shop.aggregates}
    selects = sum(model.seconds for model in built if model.name not in tables)
    folded = sum(model.seconds for model in built if model.name in tables)
    rows = built[0].rows
    cores = os.cpu_count() or 1
    return [
        Figure(f"rebuild of {len(built) - len(tables)} SELECTs, {title}", selects, "s",
               "bare SELECTs", bare, "≤ 1.5"),
        Figure(f"  events into all of them, {title}", rows / selects, "/s"),
        Figure(f"rebuild of folded state, {title}", rows / folded / cores,
               "/s a core", "bare evolve", _bare_evolves(settings, cores), "≥ 0.6"),
    ]  # fmt: skip


def _bare_selects(settings: Settings) -> float:
    """Seconds that DuckDB takes for the SELECTs of the .sql files, into tables in memory."""
    log = Log.open(settings.events, domain=shop.name)
    until = {p: log.next_position(p) for p in range(PARTITIONS)}
    rows = rows_between(log, shop.schema, {}, until)
    started = time.perf_counter()
    with session() as db:
        db.execute("SET enable_progress_bar = false")
        for model in read_models(shop):
            if isinstance(model, Select):
                query = with_relations(shop.schema, rows, f"SELECT * FROM ({model.sql}\n)")
                db.execute(f"CREATE TEMP TABLE {model.name} AS {query}")
    return time.perf_counter() - started


def _bare_evolves(settings: Settings, cores: int) -> float:
    """Events a second of one core, while all of them do the same, as in a rebuild."""
    with ProcessPoolExecutor(cores, mp_context=get_context("spawn")) as pool:
        rates = [*pool.map(_bare_evolve, [settings] * cores)]
    return sum(rates) / cores


def _bare_evolve(settings: Settings) -> float:
    """Events a second of evolve on the first partition's events, all decoded before."""
    gc.disable()  # as a rebuild does
    log = Log.open(settings.events, domain=shop.name)
    decoder = Decoder(shop)
    happened = []
    for rows in scan(shop, log, {0: log.next_position(0)}):
        ids = rows["aggregate_id"].to_pylist()
        happened += [(i, e) for i, e in zip(ids, decoder.events(rows), strict=True) if e]
    states: dict[str, State] = {}
    started = time.perf_counter()
    for aggregate_id, event in happened:
        state = states.get(aggregate_id, cart.initial)
        states[aggregate_id] = evolve(state, event)
    return len(happened) / (time.perf_counter() - started)
