"""What a read model is: three kinds of declaration, and the folder that holds the SQL."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from importlib import resources
from pathlib import Path
from typing import TypeAlias

import pyarrow as pa

from ingest.domain import Domain
from ingest.envelope import columns_of
from ingest.errors import ReadModelInvalid
from projections.session import session
from projections.sql import named
from projections.syntax import relations_in

RELATIONS = ("events", "rejections", "outcomes")
"""What a SELECT that is kept live reads from; see `projections.relations`."""

TAKEN = (*RELATIONS, "sends", "deadlines")
"""Names that no read model can have."""


@dataclass(frozen=True, slots=True)
class Folded:
    """One row an aggregate of a kind: its id, the columns of its row, `version`, `first_at`,
    `last_at`.
    """

    name: str
    aggregate: str
    """The kind's name."""
    key: str
    """The column that holds the aggregate's id."""
    columns: dict[str, pa.DataType]
    code: str
    """The digest of the code that makes the rows; see `ingest.code_digest`."""

    @property
    def table(self) -> str:
        """Its hidden table, as SQL names it."""
        return hidden_table(self.name)

    @property
    def description(self) -> str:
        """What a row is, for readers."""
        return f"The state of each {self.aggregate}: one row a {self.key}."

    @property
    def digest(self) -> str:
        """Equal for as long as the rows that were made are those that would be made now."""
        columns = sorted((n, str(t)) for n, t in self.columns.items())
        return _digest(repr((self.aggregate, self.key, columns, self.code)))


@dataclass(frozen=True, slots=True)
class Select:
    """One SELECT … FROM events … GROUP BY …; see `projections.select` for what it may say."""

    name: str
    sql: str
    description: str
    path: Path
    upcasts: str = ""
    """How events of older versions are seen; with other upcasts the rows have to be made anew."""

    @property
    def table(self) -> str:
        """Its hidden table, as SQL names it."""
        return hidden_table(self.name)

    @property
    def digest(self) -> str:
        """Equal for as long as the rows that were made are those that would be made now."""
        return _digest(self.sql + self.upcasts)


@dataclass(frozen=True, slots=True)
class View:
    """Any SQL that reads from other read models; it is computed when it is asked."""

    name: str
    sql: str
    description: str
    path: Path
    reads: frozenset[str]
    """The read models that it names."""


Stored: TypeAlias = Folded | Select
"""A read model that has rows of its own, in a hidden table."""

Model: TypeAlias = Stored | View


def hidden_table(model: str) -> str:
    """The table that keeps a read model's rows, as SQL names it."""
    return f"live.{named(model)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def sql_files(domain: Domain) -> dict[str, Path]:
    """Name of a read model → its .sql file, in the order of the names.

    Raises `ReadModelInvalid` where the domain names a package that there is not.
    """
    folder = domain.read_models
    if isinstance(folder, str):
        try:
            folder = Path(str(resources.files(folder)))
        except ModuleNotFoundError:
            raise ReadModelInvalid(
                f"domain {domain.name} has read_models={folder!r}, and there is no such package;"
                ' name one, or a folder: Path(__file__).parent / "read_models"'
            ) from None
    return {path.stem: path for path in sorted(folder.glob("*.sql"))} if folder else {}


def read_models(domain: Domain) -> tuple[Model, ...]:
    """All read models of a domain: aggregates' tables, SELECTs, then views after what they read.

    Raises `ReadModelInvalid` where a file has no description, a name is taken, views read each
    other in a circle, or the domain names a package that there is not.
    """
    folded = [
        Folded(kind.table, kind.name, kind.key, columns_of(kind.row_type), domain.code_digest)
        for kind in domain.aggregates
    ]
    tables = [model.name for model in folded]
    for name in tables:
        if name.lower() in RELATIONS:
            raise ReadModelInvalid(
                f"domain {domain.name}: there is a relation named {name}; name the table otherwise"
            )
    paths = sql_files(domain)
    for name, path in paths.items():
        if name in (*tables, *TAKEN):
            raise ReadModelInvalid(f"{path}: there is a relation named {name}; rename the file")
    upcasts = "".join(sorted(map(repr, domain.upcasts)))
    selects: list[Select] = []
    views: dict[str, View] = {}
    texts = {name: path.read_text() for name, path in paths.items()}
    with session() as db:
        read = {name: relations_in(db, sql) or frozenset() for name, sql in texts.items()}
    for name, path in paths.items():
        sql = texts[name]
        first = sql.lstrip().partition("\n")[0]
        if not first.startswith("--"):
            raise ReadModelInvalid(f"{path}:1: begin with a comment that says what a row is: -- …")
        description = first.removeprefix("--").strip()
        reads = frozenset(n for n in (*tables, *paths) if n.lower() in read[name])
        if reads:
            views[name] = View(name, sql, description, path, reads)
        else:
            selects.append(Select(name, sql, description, path, upcasts))
    return *folded, *selects, *_in_order(views)


def _in_order(views: dict[str, View]) -> list[View]:
    """Each view after those that it reads."""
    order = TopologicalSorter({name: view.reads & views.keys() for name, view in views.items()})
    try:
        return [views[name] for name in order.static_order()]
    except CycleError as error:
        circle = error.args[1]
        raise ReadModelInvalid(
            f"{views[circle[0]].path}: these read each other in a circle:"
            f" {' → '.join(reversed(circle))}; let one of them read from events"
        ) from None
