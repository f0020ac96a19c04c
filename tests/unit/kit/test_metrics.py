"""Metrics are told over HTTP, on a unix socket or a port."""

import http.client
import socket
from pathlib import Path

import pytest
from prometheus_client import Counter

from services.kit.metrics import telling
from services.kit.settings import MeshSettings

ASKED = Counter("oiab_test_asked", "What this test counts.")


def scrape(path: Path) -> str:
    connection = http.client.HTTPConnection("metrics")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(path))
    connection.request("GET", "/metrics")
    body = connection.getresponse().read().decode()
    connection.close()
    return body


def test_a_scrape_tells_what_was_counted(tmp_path: Path) -> None:
    path = tmp_path / "t-metrics.sock"
    path.touch()  # as a killed process leaves its socket
    with telling(f"unix://{path}"):
        ASKED.inc(3)
        assert "oiab_test_asked_total 3.0" in scrape(path)
        assert "process_resident_memory_bytes" in scrape(path)


def test_a_port_will_do_too() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with telling(f"127.0.0.1:{port}"):
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request("GET", "/metrics")
        assert connection.getresponse().status == 200
        connection.close()


@pytest.mark.parametrize(
    ("settings", "address"),
    [
        ({"queue_address": "unix:///run/box/queue.sock"}, "unix:///run/box/queue-metrics.sock"),
        ({"queue_address": "127.0.0.1:99", "run_dir": "/run/box"}, "unix:///run/box/queue-metrics.sock"),
        ({"run_dir": "/run/box"}, "unix:///run/box/queue-metrics.sock"),
        ({"metrics_address": "0.0.0.0:9464"}, "0.0.0.0:9464"),
    ],
)
def test_the_metrics_have_a_socket_beside_the_service(settings: dict[str, str], address: str) -> None:
    assert MeshSettings.model_validate(settings).metrics_at("queue") == address
