"""Who comes in by the policy of a method, and who does not."""

from dataclasses import replace
from typing import Any, cast
from uuid import UUID

import orginabox.api.v1.session_service_pb2
import orginabox.audit.v1.audit_service_pb2  # noqa: F401
import pytest

from services.kit.caller import Caller, current
from services.kit.errors import PermissionDenied, Unauthenticated
from services.kit.gate import Call, Gate
from services.kit.outbox import Who
from services.kit.policy import Access, Rule, permissions, require_policies, rule_of

TENANT, USER = UUID(int=1), UUID(int=2)
READ = Rule("/orginabox.api.v1.RoleService/ListRoles", Access.USER, permission="admin.manage_roles")
INSIDE = Rule("/orginabox.queue.v1.QueueService/Work", Access.INTERNAL, callers=frozenset({"worker"}))


class Records:
    """Remembers what was refused."""

    def __init__(self) -> None:
        self.refused: list[tuple[str, str]] = []
        self.who: list[Who | None] = []

    async def denied(self, target: str, reason: str, *, who: Who | None = None) -> None:
        """Remember it."""
        self.who.append(who)
        self.refused.append((target, reason))


def call(rule: Rule, peer: str = "envoy") -> Call:
    """A call of a method."""
    return Call(rule, rule.method, {}, peer, cast("Any", None))


def known(*allowed: str) -> Any:
    """Everybody is this user."""

    async def identify(_: Call) -> Caller:
        return Caller(TENANT, USER, frozenset(allowed))

    return identify


async def test_a_user_with_the_permission_comes_in_and_is_the_caller() -> None:
    async with Gate(known("admin.manage_roles")).admitted(call(READ)):
        somebody = current()
    assert somebody is not None
    assert somebody.user_id == USER
    assert current() is None


async def test_a_user_without_the_permission_is_refused_and_put_on_record() -> None:
    records = Records()
    with pytest.raises(PermissionDenied, match=r"admin\.manage_roles") as caught:
        async with Gate(known("agents.run"), recorder=records).admitted(call(READ)):
            raise AssertionError("came in")
    assert caught.value.metadata == {"permission": "admin.manage_roles"}
    assert records.refused == [("method:orginabox.api.v1.RoleService/ListRoles", "PERMISSION_DENIED")]
    assert current() is None


async def test_who_is_not_known_is_refused_and_put_on_record() -> None:
    async def identify(_: Call) -> Caller:
        raise Unauthenticated("sign in")

    records = Records()
    with pytest.raises(Unauthenticated):
        async with Gate(identify, recorder=records).admitted(call(READ)):
            raise AssertionError("came in")
    assert records.refused == [("method:orginabox.api.v1.RoleService/ListRoles", "UNAUTHENTICATED")]


@pytest.mark.parametrize("peer", ["", "worker", "api", "queue"])
async def test_users_come_in_by_the_edge_alone(peer: str) -> None:
    with pytest.raises(Unauthenticated):
        async with Gate(known("admin.manage_roles")).admitted(call(READ, peer)):
            raise AssertionError("came in")


async def test_a_server_that_knows_no_users_takes_none() -> None:
    with pytest.raises(Unauthenticated):
        async with Gate().admitted(call(READ)):
            raise AssertionError("came in")


@pytest.mark.parametrize("peer", ["", "envoy", "api", "sandbox", "Worker", "worker "])
async def test_an_internal_method_is_for_the_services_that_it_names(peer: str) -> None:
    records = Records()
    with pytest.raises(PermissionDenied):
        async with Gate(known(*permissions()), recorder=records).admitted(call(INSIDE, peer)):
            raise AssertionError("came in")
    assert records.refused
    assert records.who[0]
    assert records.who[0].actor == (f"service:{peer}" if peer and peer != "envoy" else "anonymous")


async def test_a_service_that_is_named_comes_in_as_nobody() -> None:
    async with Gate(known(*permissions())).admitted(call(INSIDE, "worker")):
        assert current() is None


async def test_a_service_brings_its_user_whose_permission_counts() -> None:
    needs = replace(INSIDE, permission="admin.manage_jobs")
    may, may_not = Caller(TENANT, USER, frozenset({"admin.manage_jobs"})), Caller(TENANT, USER)
    async with Gate(hand_over=lambda _: may).admitted(call(needs, "worker")):
        assert current() is may
    for gate in (Gate(hand_over=lambda _: may_not), Gate()):
        with pytest.raises(PermissionDenied):
            async with gate.admitted(call(needs, "worker")):
                raise AssertionError("came in")


async def test_a_public_method_is_for_everybody_and_knows_nobody() -> None:
    async with Gate().admitted(call(Rule("/orginabox.api.v1.AuthService/SignIn", Access.PUBLIC), "")):
        assert current() is None


async def test_the_caller_is_forgotten_when_the_handler_fails() -> None:
    with pytest.raises(ZeroDivisionError):
        async with Gate(known("admin.manage_roles")).admitted(call(READ)):
            raise ZeroDivisionError
    assert current() is None


def test_rules_are_what_the_contract_says() -> None:
    assert rule_of("/orginabox.api.v1.SessionService/Prompt").permission == "agents.run"
    assert rule_of("/orginabox.audit.v1.AuditService/ListRecords").names_tenant
    assert rule_of("/envoy.service.auth.v3.Authorization/Check").callers == {"envoy"}
    assert rule_of("/grpc.health.v1.Health/Check").access is Access.PUBLIC


def test_a_server_whose_permission_no_role_can_give_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.kit.policy.permissions", frozenset)
    with pytest.raises(ValueError, match=r"which no role can give"):
        require_policies(["orginabox.api.v1.SessionService"])
