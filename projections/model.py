"""What a read model is: two kinds of declaration, and the folder that holds the SELECTs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from ingest.domain import Domain
from ingest.errors import ReadModelInvalid
from ingest.schema import columns_of


@dataclass(frozen=True, slots=True)
class Folded:
    """One row an aggregate: its id, the domain's columns, `version`, `first_at`, `last_at`."""

    name: str
    key: str
    """The column that holds the aggregate's id."""
    columns: dict[str, pa.DataType]

    @property
    def description(self) -> str:
        return f"The state of each aggregate: one row a {self.key}."

    @property
    def digest(self) -> str:
        return _digest(repr((self.key, sorted((n, str(t)) for n, t in self.columns.items()))))


@dataclass(frozen=True, slots=True)
class Select:
    """One SELECT … FROM events … GROUP BY …; see `projections.select` for what it may say."""

    name: str
    sql: str
    description: str
    path: Path

    @property
    def digest(self) -> str:
        return _digest(self.sql)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def read_models(domain: Domain) -> tuple[Folded | Select, ...]:
    """All read models of a domain: the folded one, then its .sql files by name."""
    folder = domain.read_models or Path(__file__).parent / domain.name
    folded = Folded(domain.folded, domain.id_field, columns_of(domain.row_type))
    return folded, *_selects(folder)


def _selects(folder: Path) -> Iterator[Select]:
    for path in sorted(folder.glob("*.sql")):
        sql = path.read_text()
        first = sql.lstrip().partition("\n")[0]
        if not first.startswith("--"):
            raise ReadModelInvalid(f"{path}:1: begin with a comment that says what a row is: -- …")
        yield Select(path.stem, sql, first.removeprefix("--").strip(), path)
