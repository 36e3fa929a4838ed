"""A domain's read models as they are run: each SELECT compiled, and tried before it is trusted.

To try a SELECT takes 0.1 s of CPU. So each is tried once in a process, and not where the file of
read models remembers a trial that all of the same went into: it notes their proofs.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

import duckdb

from ingest.domain import Domain
from ingest.envelope import SYSTEM_TYPES
from projections.folded import LiveFolded
from projections.model import Model, Select, View, read_models
from projections.refusal import refused
from projections.relations import definitions
from projections.select import LiveSelect, compile_select
from projections.sql import named
from projections.trial import Trial, with_known_relations

_known: set[str] = set()
"""Proofs of the trials that this process has made, or has found noted."""

_made: tuple[Domain, Declarations] | None = None
"""The last ones, which hold for as long as the domain and its files say the same."""


@dataclass(frozen=True, slots=True)
class Declarations:
    """All read models of a domain, of which each holds."""

    models: tuple[Model, ...]
    live: dict[str, LiveSelect | LiveFolded]
    """By name, those that have rows of their own."""
    proofs: frozenset[str]
    """Of the SELECTs' trials."""


def declarations(domain: Domain, noted: Collection[str] = ()) -> Declarations:
    """Compile the domain's read models, and try the SELECTs whose proofs are not noted.

    Raises `ReadModelInvalid` where one does not hold, with its file and line.
    """
    global _made
    models = read_models(domain)
    if _made and _made[0] is domain and _made[1].models == models:
        return _made[1]
    event_types = [*domain.events, *SYSTEM_TYPES]
    same = repr((_code(), str(domain.schema), event_types, definitions(domain.schema)))
    live: dict[str, LiveSelect | LiveFolded] = {}
    proofs = set()
    with with_known_relations(domain.schema) as known:
        trial = Trial(known, domain.schema, event_types)
        for model in models:
            if isinstance(model, Select):
                live[model.name] = select = compile_select(model, known)
                proof = sha256(repr((same, model.name, model.sql)).encode()).hexdigest()
                if proof not in _known and proof not in noted:
                    trial.check(model, select)
                _known.add(proof)
                proofs.add(proof)
            elif isinstance(model, View):
                try:
                    known.execute(f"CREATE VIEW {named(model.name)} AS {model.sql}")
                except duckdb.Error as error:
                    raise refused(model, error) from None
            else:
                live[model.name] = folded = LiveFolded(model)
                known.execute(f"CREATE TABLE {named(model.name)} AS {folded.empty}")
    _made = domain, Declarations(models, live, frozenset(proofs))
    return _made[1]


@lru_cache(maxsize=1)
def _code() -> tuple[str, str]:
    """DuckDB's version, and a digest of what compiles and tries a SELECT here."""
    digest = sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return duckdb.__version__, digest.hexdigest()
