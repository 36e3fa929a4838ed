"""Programs as processes of their own: cold, or as forks of one process that has loaded everything.

To load its modules takes a program most of its first seconds, so tests start theirs warm. A fork
runs the same `__main__`, has its own environment, is killed and leaves files as any process. It
does not show that a program finds its modules: some tests start cold for that, and all of them do
where `FOLDLOG_TESTS_COLD` is set.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import logging
import os
import resource
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing import get_context, resource_tracker
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

PATH = [folder for folder in sys.path if folder]
"""Where modules are found, before any test has added a folder."""

COLD = bool(os.environ.get("FOLDLOG_TESTS_COLD"))

LOADED = [
    "pipeline.cli",
    "pipeline.extras.demo",
    "pipeline.health.status",
    "pipeline.operate.read",
    "pipeline.operate.up",
    "pipeline.operate.verify",
    "pipeline.operate.work",
    "tests.warm",
]
"""What the process that is forked has loaded, and all that these load."""

STARTERS = {"up": "pipeline.operate.watched", "demo": "pipeline.extras.driven"}
"""Word of the command line → the module that starts other programs for it."""

_FORKS = get_context("forkserver")
_FORKS.set_forkserver_preload(LOADED)


class Program:
    """`python -m MODULE WORDS`, with the methods of `subprocess.Popen`; it writes into files."""

    def __init__(
        self,
        module: str,
        *words: str,
        environment: dict[str, str],
        cwd: Path | None = None,
        stdin: str = "",
        file_bytes_max: int | None = None,
        cold: bool = COLD,
    ) -> None:
        """`environment` is added to the test's; the kernel refuses it files over a size."""
        self._folder = tempfile.TemporaryDirectory(prefix="foldlog-")
        self.stdin, self.stdout, self.stderr = (
            Path(self._folder.name, name) for name in ("in", "out", "err")
        )
        self.stdin.write_text(stdin)
        self.stdout.touch()
        self.stderr.touch()
        start = _cold if cold else fork
        files = (self.stdin, self.stdout, self.stderr)
        whole = {**os.environ, **environment}
        self._process = start([module, *words], whole, cwd or Path.cwd(), files, file_bytes_max)
        self.pid: int = self._process.pid
        self.kill = self._process.kill
        self.poll = self._process.poll
        self.send_signal = self._process.send_signal
        self.terminate = self._process.terminate

    @property
    def returncode(self) -> int | None:
        return self._process.returncode

    def wait(self, timeout: float | None = None) -> int:
        return int(self._process.wait(timeout))

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for its end; what it wrote to standard output and to standard error."""
        self.wait(timeout)
        return self.stdout.read_text(), self.stderr.read_text()


Files = tuple[Path, Path, Path]
"""Standard input, output and error."""


def _cold(
    words: list[str], environment: dict[str, str], cwd: Path, files: Files, limit: int | None
) -> subprocess.Popen[bytes]:
    stdin, stdout, stderr = files
    with open(stdin) as given, open(stdout, "a") as said, open(stderr, "a") as wrong:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", *words], env=environment, cwd=cwd,
            stdin=given, stdout=said, stderr=wrong, preexec_fn=lambda: _limited(limit),
        )  # fmt: skip


def fork(
    words: list[str],
    environment: dict[str, str],
    cwd: Path,
    files: Files,
    limit: int | None = None,
) -> _Fork:
    """A module with its words as a program that has loaded everything."""
    how = (words, environment, cwd, files, limit, PATH)
    return _Fork(_FORKS.Process(target=_begin, args=how))


def popen(words: Sequence[str], *, env: dict[str, str], start_new_session: bool) -> Program:
    """In place of the `subprocess.Popen` of `pipeline.extras.driven`."""
    assert start_new_session
    return Program(*words[words.index("-m") + 1 :], environment=env)


class _Fork:
    """A process of `multiprocessing` with the methods of `subprocess.Popen`."""

    def __init__(self, process: BaseProcess) -> None:
        self._process = process
        process.start()
        self.pid = process.pid
        self.kill = process.kill
        self.terminate = process.terminate

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None and self.pid is not None:
            with suppress(ProcessLookupError):  # it has just ended
                os.kill(self.pid, number)

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
        return self.returncode


class _Child(_Fork):
    """In place of the `subprocess.Popen` with which a program starts others of ours."""

    def __init__(self, words: Sequence[str], *, env: dict[str, str], **how: Any) -> None:
        module = list(words[words.index("-m") + 1 :])
        how["with_parent"] = os.getpid() if "-c" in words else None  # as ingest.child does it
        process = get_context("fork").Process(target=_begin_child, args=(module, env, how))
        super().__init__(process)


def _begin(
    words: list[str],
    environment: dict[str, str],
    cwd: Path,
    files: Files,
    limit: int | None,
    path: list[str],
) -> None:
    """In a fork: be the program."""
    PATH[:] = path
    for number, path in enumerate(files):
        flags = os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_APPEND
        opened = os.open(path, flags)
        os.dup2(opened, number)
        os.close(opened)
    os.chdir(cwd)
    _limited(limit)
    _be(words, environment)


def _begin_child(words: list[str], environment: dict[str, str], how: dict[str, Any]) -> None:
    """In a fork of a program: what `exec` would have let go of goes, and the other begins."""
    assert how.keys() <= {"start_new_session", "pass_fds", "with_parent"}
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    logging.root.handlers.clear()
    os.setsid()
    if how["with_parent"]:
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)
        if os.getppid() != how["with_parent"]:
            return
    gc.collect()  # or a file that is garbage would close the descriptor of another, later
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) not in how.get("pass_fds", ()):
            with suppress(OSError):
                os.close(int(name))
    resource_tracker._resource_tracker._fd = None  # type: ignore[attr-defined]
    _be(words, environment)


def _be(words: list[str], environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    sys.stdin, sys.stdout, sys.stderr = (
        os.fdopen(number, mode, closefd=False) for number, mode in enumerate(("r", "w", "w"))
    )
    given = [folder for folder in environment.get("PYTHONPATH", "").split(os.pathsep) if folder]
    sys.path[:] = [*given, *PATH]
    sys.argv = words
    sys.dont_write_bytecode = bool(environment.get("PYTHONDONTWRITEBYTECODE"))
    importlib.reload(importlib.import_module("ingest.crash"))  # reads the environment once
    if words[1:] and words[1] in STARTERS:
        starter = importlib.import_module(STARTERS[words[1]])
        assert starter.subprocess is subprocess
        starter.subprocess = SimpleNamespace(  # type: ignore[attr-defined]
            Popen=_Child, TimeoutExpired=subprocess.TimeoutExpired
        )
    if "operate" in words[0]:
        del sys.modules[words[0]]  # or `runpy` warns that it runs it a second time
    runpy.run_module(words[0], run_name="__main__", alter_sys=True)


def _limited(limit: int | None) -> None:
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
