"""The whole mesh, once for all tests that can share it."""

import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest

from tests.e2e.mesh import ROOT, Box, box, free_port, until

PROVIDER_KEY = "sk-a-key-that-no-sandbox-may-see"


@pytest.fixture(scope="session")
def fresh_box() -> Iterator[Box]:
    """A box as a newcomer gets it: nothing set, the demo model answers."""
    with box() as made:
        yield made


@pytest.fixture(scope="session")
def model_server() -> Iterator[str]:
    """The address of the scripted model, in a process of its own."""
    port = free_port()
    server = subprocess.Popen(
        (sys.executable, "-m", "tests.model_server", "--port", str(port)), cwd=ROOT, stdout=subprocess.DEVNULL
    )
    until(lambda: _answers(f"http://127.0.0.1:{port}/v1/models"))
    yield f"http://127.0.0.1:{port}/v1"
    server.terminate()
    server.wait(10)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False).is_success
    except httpx.TransportError:
        return False


@pytest.fixture(scope="session")
def mesh(model_server: str) -> Iterator[Box]:
    """A box whose agents run on the scripted model."""
    with box(OIAB_DEMO_MODEL="false") as made:
        use_scripted_model(made, model_server)
        yield made


def use_scripted_model(made: Box, address: str, **provider: object) -> None:
    """Let the agents of a box run on the scripted model."""
    with made.http() as http:
        wanted = {
            "providerId": "scripted",
            "kind": "PROVIDER_KIND_OPENAI_COMPATIBLE",
            "baseUrl": address,
            "models": ["scripted"],
            "preferred": True,
            **provider,
        }
        http.post("/v1/providers", json={"provider": wanted, "apiKey": PROVIDER_KEY}).raise_for_status()
        assert http.post("/v1/runtime:apply", json={}).raise_for_status().json()["changed"]
