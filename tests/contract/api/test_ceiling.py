"""An agent never does more than its user may: whose rights go, their turns end, waiting or running."""

from dataclasses import dataclass
from typing import Any

import grpc
import psycopg
import pytest
from orginabox.api.v1 import (
    auth_service_pb2,
    auth_service_pb2_grpc,
    role_pb2,
    role_service_pb2,
    role_service_pb2_grpc,
    session_service_pb2,
    turn_service_pb2,
    user_pb2,
    user_service_pb2,
    user_service_pb2_grpc,
)
from orginabox.errors.v1 import error_reason_pb2 as reasons
from orginabox.turn.v1 import turn_event_pb2

from services.api import ward
from services.kit.errors import PermissionDenied
from services.kit.status import reason_of
from tests.contract.api.conftest import Rig
from tests.contract.api.test_turn_log import append, delta, make_turn, open_turn
from tests.postgres import as_administrator

PASSWORD = "the moon was late"
Metadata = tuple[tuple[str, str], ...]


@dataclass
class Person:
    """A user with a role of their own."""

    api: Rig
    user_id: str
    key: Metadata

    @classmethod
    async def make(cls, api: Rig) -> "Person":
        users, auth = (
            user_service_pb2_grpc.UserServiceStub(api.channel),
            auth_service_pb2_grpc.AuthServiceStub(api.channel),
        )
        role = role_pb2.UserRole(name="agents", permissions=permissions())
        await role_service_pb2_grpc.RoleServiceStub(api.channel).CreateRole(
            role_service_pb2.CreateRoleRequest(role=role), metadata=api.key
        )
        made = user_service_pb2.CreateUserRequest(handle="ada", password=PASSWORD, roles=["agents"])
        user = (await users.CreateUser(made, metadata=api.key)).user
        tokens = (await auth.SignIn(auth_service_pb2.SignInRequest(handle="ada", password=PASSWORD))).tokens
        return cls(api, user.user_id, (("authorization", f"Bearer {tokens.access_token}"),))

    async def turn(self) -> str:
        """A new turn of theirs."""
        session = await self.api.sessions.CreateSession(session_service_pb2.CreateSessionRequest(), metadata=self.key)
        request = session_service_pb2.PromptRequest(session_id=session.session_id, text="hello")
        return str((await self.api.sessions.Prompt(request, metadata=self.key)).turn_id)

    async def stand(self, status: user_pb2.UserStatus.ValueType) -> None:
        """Suspend them, or let them in again."""
        user = user_pb2.User(user_id=self.user_id, status=status)
        await user_service_pb2_grpc.UserServiceStub(self.api.channel).UpdateUser(
            user_service_pb2.UpdateUserRequest(user=user), metadata=self.api.key
        )

    async def may(self, wanted: role_pb2.Permissions) -> None:
        """Change what their role gives."""
        role = role_pb2.UserRole(role_id="agents", name="agents", permissions=wanted)
        await role_service_pb2_grpc.RoleServiceStub(self.api.channel).UpdateRole(
            role_service_pb2.UpdateRoleRequest(role=role), metadata=self.api.key
        )

    async def reply(self, turn_id: str) -> None:
        """Allow what a turn asks for."""
        request = turn_service_pb2.ReplyPermissionRequest(
            turn_id=turn_id, permission_id="per_1", reply=turn_event_pb2.PERMISSION_REPLY_ONCE
        )
        await self.api.turns.ReplyPermission(request, metadata=self.key)


def permissions(*denied: str, allowed: str = "*", run: bool = True) -> role_pb2.Permissions:
    return role_pb2.Permissions(
        agents=role_pb2.AgentPermissions(read=True, create=True, run=run),
        tools=role_pb2.ToolPermissions(allowed=[allowed], denied=denied),
    )


async def ended(api: Rig, turn_id: str, reason: str) -> None:
    """Check that a turn has failed for a reason: in the database, in its log, and on record."""
    async with await psycopg.AsyncConnection.connect(as_administrator(api.settings.database_url)) as connection:
        found = await connection.execute("SELECT failure_reason FROM api.turn WHERE turn_id = %s", (turn_id,))
        assert await found.fetchone() == (reason,)
        found = await connection.execute(
            "SELECT events FROM api.turn_event WHERE turn_id = %s ORDER BY first_sequence DESC LIMIT 1", (turn_id,)
        )
        ((events,),) = await found.fetchall()
    last = turn_event_pb2.TurnEvent.FromString(bytes(events[-1]))
    assert reasons.ErrorReason.Name(last.failed.reason) == f"ERROR_REASON_{reason}"
    assert last.failed.message
    await api.until(lambda: bool(completes(api, turn_id)))
    (record,) = completes(api, turn_id)
    assert record.actor.startswith("agent:")
    assert record.payload["reason"] == reason


def completes(api: Rig, turn_id: str) -> list[Any]:
    """What is on record of the end of a turn."""
    records = [record for batch in api.peers.records for record in batch.records]
    return [each for each in records if (each.action, each.target) == ("agent.complete", f"turn:{turn_id}")]


SUSPENDED, ACTIVE = user_pb2.USER_STATUS_SUSPENDED, user_pb2.USER_STATUS_ACTIVE


async def test_a_turn_runs_under_the_ceiling_that_its_user_has_when_it_begins(api: Rig) -> None:
    person = await Person.make(api)
    turn_id, next_id = await person.turn(), await person.turn()
    opened = await open_turn(api, turn_id)
    assert (list(opened.tools.allowed), list(opened.tools.denied)) == (["*"], [])
    await person.may(permissions("bash", allowed="read"))
    opened = await open_turn(api, next_id)
    assert (list(opened.tools.allowed), list(opened.tools.denied)) == (["read"], ["bash"])
    opened = await open_turn(api, turn_id, 2, "t2")
    assert list(opened.tools.denied) == ["bash"]


async def test_a_waiting_turn_of_a_suspended_user_never_runs(api: Rig) -> None:
    person = await Person.make(api)
    turn_id = await person.turn()
    await person.stand(SUSPENDED)
    for _ in range(2):
        opened = await open_turn(api, turn_id)
        assert opened.ended
        assert not opened.HasField("tools")
    await ended(api, turn_id, "USER_SUSPENDED")
    await person.stand(ACTIVE)
    assert (await open_turn(api, turn_id)).ended


async def test_a_waiting_turn_of_who_may_not_run_agents_any_more_never_runs(api: Rig) -> None:
    person = await Person.make(api)
    turn_id = await person.turn()
    await person.may(permissions(run=False))
    assert (await open_turn(api, turn_id)).ended
    await ended(api, turn_id, "PERMISSION_DENIED")


@pytest.mark.parametrize("reason", ["USER_SUSPENDED", "PERMISSION_DENIED"])
async def test_a_running_turn_ends_soon_and_is_not_taken_up_again(
    api: Rig, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    monkeypatch.setattr(ward, "LOOK_SECONDS", 0.1)
    person = await Person.make(api)
    turn_id, other = await person.turn(), await make_turn(api)
    await open_turn(api, turn_id)
    await open_turn(api, other)
    await append(api, turn_id, delta(1))
    await (person.stand(SUSPENDED) if reason == "USER_SUSPENDED" else person.may(permissions(run=False)))
    await api.until(lambda: turn_id in api.peers.aborted)
    await ended(api, turn_id, reason)
    with pytest.raises(grpc.aio.AioRpcError):
        await append(api, turn_id, delta(3))
    assert (await open_turn(api, turn_id, 2, "t2")).ended
    assert not (await open_turn(api, other)).ended


async def test_an_answer_is_given_as_who_one_is_now(api: Rig) -> None:
    person = await Person.make(api)
    turn_id = await person.turn()
    await open_turn(api, turn_id)
    await person.may(permissions("bash"))
    await person.reply(turn_id)
    assert list(api.peers.replies[-1].tools.denied) == ["bash"]
    api.peers.refuse_reply = PermissionDenied("not this tool")
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await person.reply(turn_id)
    assert reason_of(raised.value) == "PERMISSION_DENIED"
    await api.until(lambda: "auth.denied" in api.peers.actions())


async def test_who_may_not_run_agents_neither_answers_nor_steers(api: Rig) -> None:
    person = await Person.make(api)
    turn_id = await person.turn()
    await open_turn(api, turn_id)
    await person.may(permissions(run=False))
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await person.reply(turn_id)
    assert reason_of(raised.value) == "PERMISSION_DENIED"
    assert not api.peers.replies


async def test_what_an_agent_does_is_on_record_as_its_own_for_its_user(api: Rig) -> None:
    person = await Person.make(api)
    turn_id = await person.turn()
    await open_turn(api, turn_id)
    used = turn_event_pb2.ToolFinished(call_id="c", tool="bash", outcome=turn_event_pb2.TOOL_OUTCOME_ERROR)
    done = turn_event_pb2.TurnEvent(sequence=2, tool_finished=used)
    await append(api, turn_id, delta(1), done, done, delta(3))
    await api.until(lambda: "tool.execute" in api.peers.actions())
    (record,) = [each for batch in api.peers.records for each in batch.records if each.action == "tool.execute"]
    assert record.actor.startswith("agent:")
    assert record.user_id == person.user_id
    assert record.target == f"turn:{turn_id}"
    assert (record.payload["tool"], record.payload["outcome"]) == ("bash", "error")
