"""A `foldlog` for shells, which is a fork as in `tests.processes`: to load its modules takes each
command longer than what it does.
"""

from __future__ import annotations

import json
import socketserver
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.processes import COLD, fork

CLIENT = """#!{python} -IS
import json, os, signal, socket, sys

asked = {{"words": sys.argv[1:], "environment": dict(os.environ), "cwd": os.getcwd(),
          "files": [f"/proc/{{os.getpid()}}/fd/{{number}}" for number in range(3)]}}
with socket.socket(socket.AF_UNIX) as line:
    line.connect("{address}")
    told = line.makefile("rw")
    print(json.dumps(asked), file=told, flush=True)
    process = int(told.readline())
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: os.kill(process, number))
    sys.exit(int(told.readline()))
"""


class _Asked(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        asked = json.loads(self.rfile.readline())
        stdin, stdout, stderr = map(Path, asked["files"])
        words = ["pipeline.cli", *asked["words"]]
        files = stdin, stdout, stderr
        begun = fork(words, asked["environment"], Path(asked["cwd"]), files)
        self.wfile.write(f"{begun.pid}\n".encode())
        self.wfile.write(f"{begun.wait()}\n".encode())


@contextmanager
def foldlog_in(folder: Path) -> Iterator[None]:
    """A program `foldlog` there, which shells find before the installed one."""
    if COLD or sys.platform != "linux":
        yield
        return
    with tempfile.TemporaryDirectory(prefix="foldlog-") as short:
        address = f"{short}/shells.sock"
        program = folder / "foldlog"
        program.write_text(CLIENT.format(python=sys.executable, address=address))
        program.chmod(0o755)
        with socketserver.ThreadingUnixStreamServer(address, _Asked) as server:
            thread = threading.Thread(target=server.serve_forever, args=[0.05])
            thread.start()
            try:
                yield
            finally:
                server.shutdown()
                thread.join()
