"""Every path below the data directory, once. Nothing here is made by asking for its path."""

from __future__ import annotations

from pathlib import Path


class Paths:
    """The files and folders of one data directory. `events` is the truth; all else comes back."""

    data: Path
    """The data directory."""

    @property
    def events(self) -> Path:
        """The log: a folder for each partition."""
        return self.data / "events"

    @property
    def published(self) -> Path:
        """The DuckDB file that readers open."""
        return self.data / "read_models.duckdb"

    @property
    def exported(self) -> Path:
        """The folder of the exported Parquet files."""
        return self.data / "parquet"

    @property
    def kept(self) -> Path:
        """The log's files as published files name them: a cache; see `projections.kept`."""
        return self.data / "kept"

    @property
    def writers_file(self) -> Path:
        """The read models as their writer keeps them, of which the published file is a copy."""
        return self.data / "writer.duckdb"

    @property
    def states(self) -> Path:
        """The read side's snapshots of aggregates: a cache."""
        return self.data / "states"

    @property
    def snapshots(self) -> Path:
        """The write side's snapshots of aggregates: a cache."""
        return self.data / "snapshots"

    @property
    def rebuilding(self) -> Path:
        """The DuckDB file that a rebuild is writing."""
        return self.data / "rebuilding.duckdb"

    @property
    def rebuilt(self) -> Path:
        """Where rebuilt read models wait for the pipeline to take them over."""
        return self.data / "rebuilt.duckdb"

    @property
    def read_lock(self) -> Path:
        """Held by the one read side."""
        return self.data / "read.lock"

    @property
    def rebuild_lock(self) -> Path:
        """Held by the one rebuild."""
        return self.data / "rebuild.lock"

    @property
    def export_lock(self) -> Path:
        """Held by the one export."""
        return self.data / "export.lock"

    @property
    def lock(self) -> Path:
        """Held while `foldlog up` runs; names the programs that it keeps running."""
        return self.data / "lock"

    @property
    def programs(self) -> Path:
        """A file for each program that runs, on which the program holds a lock."""
        return self.data / "programs"

    @property
    def errors(self) -> Path:
        """The last warnings and errors of the pipeline: a cache."""
        return self.data / "errors.jsonl"
