"""The published read models for asyncio: no question and no wait blocks the event loop."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from ingest.outcome import Outcome
from projections.connection import LOOK_S, ReadModels, connect, not_published
from projections.query import Query, R, ask
from projections.session import Config


class AsyncReadModels:
    """`ReadModels` for asyncio, asked in threads. Make it with `await AsyncReadModels.connect()`.

    Any number of tasks may share it; the event loop's own pool of threads bounds how many questions
    run at a time.
    """

    def __init__(self, models: ReadModels) -> None:
        self._models = models

    @classmethod
    async def connect(
        cls,
        path: Path | str = "data/read_models.duckdb",
        *,
        sandbox: bool = True,
        config: Config | None = None,
    ) -> AsyncReadModels:
        """Raises `NotAvailable` where nothing is published."""
        return cls(await asyncio.to_thread(connect, path, sandbox=sandbox, config=config))

    async def ask(self, query: Query[R]) -> R:
        """The answer to a typed query."""
        return await asyncio.to_thread(ask, self._models, query)

    async def rows(self, query: str, parameters: Any = None) -> list[dict[str, Any]]:
        """All rows of the answer to some SQL, a dict each."""
        return await asyncio.to_thread(self._models.rows, query, parameters)

    async def wait_for(self, outcome: Outcome, timeout: float = 10) -> None:
        """Until what the command did is published. Raises `OutcomeTimeout` after `timeout` s."""
        deadline = time.monotonic() + timeout
        while not await self._holds(outcome):
            if time.monotonic() > deadline:
                raise not_published(outcome, timeout)
            await asyncio.sleep(LOOK_S)

    async def _holds(self, outcome: Outcome) -> bool:
        if self._models.moved_on:
            return await asyncio.to_thread(self._models.holds, outcome)
        return self._models.holds(outcome)

    async def close(self) -> None:
        self._models.close()

    async def __aenter__(self) -> AsyncReadModels:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
