"""A turn that waits for its user keeps nobody else waiting, and waits through anything."""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import use_scripted_model
from tests.e2e.mesh import Box, box, kinds, said, sequences, until
from tests.e2e.test_faults import answers, follow
from tests.model_server.script import scenario

ASKING = scenario("bash", command="date -u +%Y > year.txt", before="Let me see. ", after="That is it.")


@pytest.fixture(scope="module")
def mesh(model_server: str) -> Iterator[Box]:
    """A box whose only worker has one place."""
    with box(OIAB_DEMO_MODEL="false", OIAB_WORKER_CONCURRENCY="1") as made:
        use_scripted_model(made, model_server)
        made.turn("say warm")
        yield made


def takes_sessions(mesh: Box) -> bool:
    """Whether what was killed is back."""
    with contextlib.suppress(httpx.HTTPError):
        return bool(mesh.session())
    return False


def test_others_run_while_one_waits_for_its_user(mesh: Box) -> None:
    session_id = mesh.session()
    turn_id = mesh.prompt(session_id, ASKING)
    events: list[dict[str, Any]] = []
    reader = threading.Thread(target=follow, args=(mesh, turn_id, events))
    reader.start()
    until(lambda: "permissionAsked" in kinds(events), 30)
    answers(mesh, "Meanwhile.")
    for victim in ("worker", "queue", "api"):
        mesh.kill(victim)
        until(lambda: takes_sessions(mesh), 30)
        answers(mesh, f"And without the {victim}.")
    assert kinds(events)[-1] == "permissionAsked"

    asked = next(event["permissionAsked"]["permissionId"] for event in events if "permissionAsked" in event)
    with mesh.http() as http:
        reply = {"reply": "PERMISSION_REPLY_ONCE"}
        http.post(f"/v1/turns/{turn_id}/permissions/{asked}:reply", json=reply).raise_for_status()
    reader.join(30)
    assert not reader.is_alive()
    assert sequences(events) == list(range(1, len(events) + 1))
    assert kinds(events).count("permissionAsked") == 1
    assert kinds(events)[-1] == "completed"
    assert said(events) == "Let me see. That is it."
    answers(mesh, "And on.", session_id)
