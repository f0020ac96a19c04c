"""An agent may do no more than its user, in the whole mesh: what is offered to the model, and what waits or runs."""

import json
import secrets
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import httpx
import pytest

from tests.e2e.mesh import Box, until
from tests.model_server.script import scenario

PASSWORD = "the moon was late again"


class Person:
    """Somebody with a role of their own, by REST."""

    def __init__(self, mesh: Box, model: str) -> None:
        self.mesh, self.model = mesh, model.removesuffix("/v1")
        self.name = f"p{secrets.token_hex(4)}"
        self.admin = mesh.http()
        self._post("/v1/admin/roles", role={"name": self.name, "permissions": permissions()})
        user = {"handle": self.name, "password": PASSWORD, "roles": [self.name]}
        self.user_id = self._post("/v1/admin/users", **user)["user"]["userId"]
        self.http = mesh.http()
        self.sign_in()
        self.session = self.http.post("/v1/sessions", json={}).raise_for_status().json()["sessionId"]

    def sign_in(self) -> None:
        """Sign in, with the password."""
        answer = self.admin.post("/v1/auth/sign-in", json={"handle": self.name, "password": PASSWORD})
        token = answer.raise_for_status().json()["tokens"]["accessToken"]
        self.http.headers["authorization"] = f"Bearer {token}"

    def may(self, *denied: str) -> None:
        """Change which tools their role denies."""
        role = {"name": self.name, "permissions": permissions(*denied)}
        self.admin.patch(f"/v1/admin/roles/{self.name}", json={"role": role}).raise_for_status()

    def stand(self, status: str) -> None:
        """Suspend them, or let them in again."""
        wanted = {"user": {"status": f"USER_STATUS_{status}"}}
        self.admin.patch(f"/v1/admin/users/{self.user_id}", json=wanted).raise_for_status()

    def prompt(self, text: str) -> str:
        """Say something; the id of the turn."""
        answer = self.http.post(f"/v1/sessions/{self.session}/prompt", json={"text": text}).raise_for_status()
        return str(answer.json()["turnId"])

    def events(self, turn_id: str) -> list[dict[str, Any]]:
        """The events of a turn that ends."""
        with self.http.stream("GET", f"/v1/turns/{turn_id}/events") as answer:
            lines = [line for line in answer.iter_lines() if line.startswith("data:")]
        return [found for line in lines if "sequence" in (found := json.loads(line[5:]))]

    def turn(self, turn_id: str) -> dict[str, Any]:
        """How a turn stands."""
        found: dict[str, Any] = self.http.get(f"/v1/turns/{turn_id}").raise_for_status().json()["turn"]
        return found

    def calls(self, word: str) -> list[dict[str, Any]]:
        """What the model was asked with a word in it."""
        asked = httpx.get(f"{self.model}/_requests", trust_env=False).json()
        return [each["body"] for each in asked if word in json.dumps(each["body"]["messages"][-2:])]

    def close(self) -> None:
        """Leave."""
        with suppress(httpx.HTTPError):
            self.stand("SUSPENDED")
        self.http.close()
        self.admin.close()

    def _post(self, path: str, **body: Any) -> Any:
        answer = self.admin.post(path, json=body)
        return answer.raise_for_status().json()


def permissions(*denied: str) -> dict[str, Any]:
    agents = {"read": True, "create": True, "run": True}
    return {"agents": agents, "tools": {"allowed": ["*"], "denied": list(denied)}}


@pytest.fixture
def person(mesh: Box, model_server: str) -> Iterator[Person]:
    found = Person(mesh, model_server)
    yield found
    found.close()


def bash(person: Person, turn_id: str, word: str) -> tuple[bool, str]:
    """Whether a turn's model was offered bash, and what its tools said."""
    events = person.events(turn_id)
    assert "completed" in events[-1], events[-1]
    ended = [each["toolFinished"] for each in events if "toolFinished" in each]
    tools = {tool["function"]["name"] for call in person.calls(word) for tool in call["tools"]}
    return "bash" in tools, " ".join(each.get("output", "") + each.get("error", "") for each in ended)


def command(word: str) -> str:
    return scenario("bash", command=f"echo o''k # {word}")


def test_a_denied_tool_is_not_offered_and_comes_back_with_the_next_turn(person: Person) -> None:
    for number, denied in enumerate(([], ["bash"], [])):
        person.may(*denied)
        word = f"{person.name}-{number}"
        offered, output = bash(person, person.prompt(command(word)), word)
        assert offered is not bool(denied)
        assert ("ok\n" in output) is not bool(denied)


def test_a_change_of_a_role_counts_for_a_turn_that_waits(person: Person) -> None:
    first = person.prompt(scenario("slow", deltas=30, interval=0.1))
    waiting = person.prompt(command(f"{person.name}-waits"))
    person.may("bash")
    assert person.turn(waiting)["state"] == "TURN_STATE_QUEUED"
    assert "completed" in person.events(first)[-1]
    offered, output = bash(person, waiting, f"{person.name}-waits")
    assert not offered
    assert "ok\n" not in output


def test_the_turns_of_a_suspended_user_end_and_those_that_wait_never_run(person: Person) -> None:
    running = person.prompt(scenario("slow", deltas=900, interval=0.1))
    waiting = person.prompt(command(f"{person.name}-never"))
    until(lambda: person.turn(running)["state"] == "TURN_STATE_RUNNING", 30)
    person.stand("SUSPENDED")
    began = time.monotonic()
    time.sleep(6)
    person.stand("ACTIVE")
    person.sign_in()
    for turn_id in (running, waiting):
        turn = person.turn(turn_id)
        assert turn["state"] == "TURN_STATE_FAILED", (turn, time.monotonic() - began)
        assert person.events(turn_id)[-1]["failed"]["reason"] == "ERROR_REASON_USER_SUSPENDED"
    assert not person.calls(f"{person.name}-never")
    assert "completed" in person.events(person.prompt("say welcome back"))[-1]
