"""The pictures in docs/screenshots, made from a run of the demo: `make screenshots`."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from tests.app import opened, served

FOLDER = Path(__file__).parent.parent / "docs" / "screenshots"


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        words = [sys.executable, "-m", "pipeline.cli", "demo", "--data", str(data)]
        with subprocess.Popen(words, stdout=subprocess.DEVNULL) as demo:
            try:
                with served("live.py", data) as address, opened(address, 920) as page:
                    page.locator("canvas").nth(3).wait_for(timeout=60_000)
                    page.wait_for_timeout(30_000)
                    page.screenshot(path=FOLDER / "live.png")
                assert demo.wait(timeout=300) == 0
            finally:
                demo.terminate()
        with served("sales.py", data) as address, opened(address, 1640) as page:
            page.locator("canvas").nth(3).wait_for(timeout=60_000)
            page.wait_for_timeout(2_000)
            page.screenshot(path=FOLDER / "sales.png")


if __name__ == "__main__":
    main()
