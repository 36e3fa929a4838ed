"""`foldlog up` in a process of its own, for those that drive it: the demo and the benchmark."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from ingest.errors import FoldlogError
from ingest.producer import Producer
from pipeline.engine.programs import running
from pipeline.settings import Settings


class Pipeline:
    """Runs within a `with`, and is told to stop at its end."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Pipeline:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "pipeline.cli", "up", "--quiet"],
            env={**os.environ, **self._settings.as_environment()},
            start_new_session=True,
        )
        return self

    def wait_until_ready(self) -> None:
        """Until a producer could send. Raises `FoldlogError` where it stops before."""
        domain = self._settings.load_domain()
        while True:
            self.check()
            try:
                Producer(self._settings.reachable_redis, domain, retry_s=0.1).close()
                return
            except FoldlogError:
                time.sleep(0.05)

    def check(self) -> None:
        """Raises `FoldlogError` where it has stopped; what it said is the reason."""
        if self._process is not None and self._process.poll() is not None:
            raise FoldlogError("the pipeline has stopped; the line above says why")

    def memory_bytes(self) -> int:
        """What both sides hold in memory now (resident set size)."""
        found = [Path(f"/proc/{program.process}") for program in running(self._settings)]
        lines = [line for p in found for line in Path(p, "status").read_text().splitlines()]
        return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait()
