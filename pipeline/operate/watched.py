"""One program of `foldlog up`: started, and started again by itself when it dies, with back-off."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

from ingest.child import with_parent
from ingest.errors import FoldlogError
from pipeline.engine.program import READY, TOLD

logger = logging.getLogger("foldlog")

STOP_TIMEOUT_S = 60
BACKOFF_FIRST_S, BACKOFF_MAX_S = 0.1, 10.0
STABLE_S = 30
"""A process that lived this long died of something new: the back-off starts again."""


class Watched:
    """A program as `python -m` names it, a process in a session of its own."""

    def __init__(self, name: str, words: list[str], environment: dict[str, str], lock: int) -> None:
        """`words` are the module and its arguments; the descriptor `lock` stays open in it."""
        self.name = name
        self.process: subprocess.Popen[bytes] | None = None
        self._words = [sys.executable, "-P", "-m", *words]  # -P: no pipeline.py of the user's
        self._environment = environment
        self._lock = lock
        self._ready: int | None = None
        self._was_ready = False
        self._started = 0.0
        self._start_at = 0.0
        self._pause_s = BACKOFF_FIRST_S

    def keep_running(self) -> None:
        """Start it if it does not run and its time has come.

        Raises `FoldlogError` where it has said what is wrong before it ever ran.
        """
        if self.process is not None and (code := self.process.poll()) is not None:
            self._died(code)
        if self.process is None and time.monotonic() >= self._start_at:
            self._start()

    def _start(self) -> None:
        self._ready, telling = os.pipe()
        os.set_blocking(self._ready, False)
        self.process = subprocess.Popen(
            with_parent(self._words),
            env=self._environment | {READY: str(telling)},
            start_new_session=True,
            pass_fds=[self._lock, telling],
        )
        os.close(telling)
        self._started = time.monotonic()

    def is_ready(self) -> bool:
        """Whether it has ever said that it runs."""
        if self._ready is not None and not self._was_ready:
            with suppress(BlockingIOError):
                self._was_ready = bool(os.read(self._ready, 1))
        return self._was_ready

    def _died(self, code: int) -> None:
        was_ready = self.is_ready()
        self._forget()
        if code == TOLD and not was_ready:
            raise FoldlogError("the pipeline stopped; the line above says why")
        if time.monotonic() - self._started > STABLE_S:
            self._pause_s = BACKOFF_FIRST_S
        logger.warning(
            "%s has ended (exit code %s); it is started again in %.1f s",
            self.name, code, self._pause_s,
        )  # fmt: skip
        self._start_at = time.monotonic() + self._pause_s
        self._pause_s = min(BACKOFF_MAX_S, self._pause_s * 2)

    def _forget(self) -> None:
        self.process = None
        if self._ready is not None:
            os.close(self._ready)
            self._ready = None

    def stop(self) -> int:
        """End it after the batch in hand; its exit code, 0 where it does not run."""
        if self.process is None:
            return 0
        self.process.terminate()
        try:
            self.process.wait(timeout=STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        code = self.process.returncode
        self._forget()
        return 0 if code == -signal.SIGTERM else code  # it may be stopped before it runs
