"""The docs' web service, with many clients at once, while the read models are replaced."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.many import CARTS, MANY, add, publishing
from tests.pages import block_with
from tests.running import InProcess, wait_for

SERVICE = block_with("docs/howto/ask.md", "FastAPI")


@pytest.fixture
def pipeline(tmp_path: Path) -> Iterator[InProcess]:
    pipeline = InProcess(tmp_path / "data", partitions=1)
    pipeline.run(0, *(add(cart) | {"product_id": f"p{cart:02}"} for cart in range(CARTS)))
    pipeline.publish()
    yield pipeline
    pipeline.writer.close()


@pytest.fixture
def client(tmp_path: Path, pipeline: InProcess) -> Iterator[httpx.Client]:
    (tmp_path / "service.py").write_text(SERVICE)
    socket = f"/tmp/{tmp_path.name[-40:]}-{os.getpid()}.sock"  # a socket's path must be short
    served = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", "service:app", "--uds", socket, "--log-level", "warning",
         "--timeout-keep-alive", "600"],
        cwd=tmp_path,
    )  # fmt: skip
    transport = httpx.HTTPTransport(uds=socket, limits=httpx.Limits(max_connections=MANY))
    with httpx.Client(transport=transport, base_url="http://service", timeout=60) as client:

        def answers() -> bool:
            assert served.poll() is None
            with suppress(httpx.TransportError):
                return client.get("/carts/nobody").text == "null"
            return False

        try:
            wait_for(answers, "the service to answer")
            yield client
            assert served.poll() is None, "the service has died"
        finally:
            served.terminate()
            served.wait(timeout=60)
            Path(socket).unlink(missing_ok=True)


def test_each_client_gets_its_own_answer(pipeline: InProcess, client: httpx.Client) -> None:
    def cart(number: int) -> Any:
        return client.get(f"/carts/cart-{number % CARTS}").raise_for_status().json()

    def products(number: int) -> Any:
        limit = number % CARTS + 1
        return client.get(f"/products?limit={limit}").raise_for_status().json()

    with publishing(pipeline) as published, ThreadPoolExecutor(MANY) as threads:
        carts = [threads.submit(cart, number) for number in range(2 * MANY)]
        tops = [threads.submit(products, number) for number in range(2 * MANY)]
        for number, found in enumerate(carts):
            shown = found.result()
            assert (shown["cart_id"], shown["units"]) == (
                f"cart-{number % CARTS}", number % CARTS + 1,
            )  # fmt: skip
        for number, found in enumerate(tops):
            assert len(found.result()) == number % CARTS + 1
    assert published
