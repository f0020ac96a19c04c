"""Several replicas of Api in one box: a stream that dies with one goes on at another."""

import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from services.box.home import Home
from tests.e2e.conftest import use_scripted_model
from tests.e2e.mesh import Box, box, kinds, sequences, until
from tests.e2e.test_faults import follow
from tests.model_server.script import scenario

READERS = 6


@pytest.fixture(scope="module")
def mesh(model_server: str) -> Iterator[Box]:
    """A box with three replicas."""
    with box(OIAB_DEMO_MODEL="false", OIAB_API_REPLICAS="3") as made:
        use_scripted_model(made, model_server)
        made.turn("say warm")
        yield made


def test_a_reader_goes_on_at_another_replica(mesh: Box) -> None:
    turn_id = mesh.prompt(mesh.session(), scenario("slow", deltas=200, interval=0.05))
    read: list[list[dict[str, Any]]] = [[] for _ in range(READERS)]
    readers = [threading.Thread(target=follow, args=(mesh, turn_id, events)) for events in read]
    for reader in readers:
        reader.start()
    for number, victim in enumerate(("api-2", "api-3", "api"), 1):
        until(lambda seen=20 * number: all(len(events) > seen for events in read), 30)  # type: ignore[misc]
        mesh.kill(victim)
    for reader in readers:
        reader.join(60)
    whole = mesh.events(turn_id)
    assert kinds(whole)[-1] == "completed"
    for events in read:
        assert sequences(events) == list(range(1, len(whole) + 1))
        assert events == whole


def test_readers_are_spread_over_the_replicas(mesh: Box) -> None:
    turn_id = mesh.prompt(mesh.session(), scenario("slow", deltas=100, interval=0.05))
    readers = [threading.Thread(target=follow, args=(mesh, turn_id, [])) for _ in range(READERS)]
    for reader in readers:
        reader.start()
    until(lambda: all(open_streams(mesh, name) for name in ("api", "api-2", "api-3")), 10)
    for reader in readers:
        reader.join(60)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("worker", 'oiab_worker_turns_left_total{how="done"}'),
        ("sandbox", 'oiab_sandbox_turns_ended_total{end="completed",reason=""}'),
        ("runtime", 'oiab_runtime_door_decisions_total{decision="out"}'),
        ("audit", "oiab_audit_appended_records_total"),
        ("queue", 'oiab_queue_ended_total{state="completed"}'),
    ],
)
def test_every_service_tells_what_it_did(mesh: Box, name: str, line: str) -> None:
    until(lambda: metric(mesh, name, line) >= 1, 10)


def open_streams(mesh: Box, name: str) -> float:
    """How many streams of events a replica has."""
    return metric(mesh, name, "oiab_api_open_streams")


def metric(mesh: Box, name: str, line: str) -> float:
    """A value that a process tells Prometheus."""
    transport = httpx.HTTPTransport(uds=str(Home.locate({"OIAB_HOME": str(mesh.home)}).socket(f"{name}-metrics")))
    with httpx.Client(transport=transport) as http:
        told = http.get("http://metrics/metrics").text
    return next((float(each.rsplit(" ", 1)[1]) for each in told.splitlines() if each.startswith(f"{line} ")), 0.0)
