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

    def memory_bytes(self, of: str = "VmRSS") -> int:
        """What both sides hold in memory now (resident set size); `VmHWM`: at most, each."""
        found = [path.joinpath("status").read_text() for path in self._processes().values()]
        lines = [line for text in found for line in text.splitlines()]
        return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(of))

    def cpu_s(self) -> dict[str, float]:
        """CPU that each program has taken so far, by its name."""
        stats = {n: p.joinpath("stat").read_text() for n, p in self._processes().items()}
        ticks = {n: text.rpartition(")")[2].split()[11:13] for n, text in stats.items()}
        return {n: sum(map(int, spent)) / os.sysconf("SC_CLK_TCK") for n, spent in ticks.items()}

    def _processes(self) -> dict[str, Path]:
        return {each.name: Path(f"/proc/{each.process}") for each in running(self._settings)}

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait()
