"""Every change leaves its record in the transaction of the change, under the action that the contract names."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn
from uuid import UUID, uuid4

import psycopg
import pytest
from orginabox.api.v1 import (
    api_token_service_pb2,
    auth_service_pb2,
    role_pb2,
    role_service_pb2,
    tenant_service_pb2,
    user_pb2,
    user_service_pb2,
)

from services.identity import device_operations
from services.identity.room import SERVICES
from services.kit.caller import Caller
from services.kit.errors import ServiceUnavailable
from services.kit.ids import DEFAULT_TENANT
from services.kit.policy import rule_of
from tests.contract.identity.rig import PASSWORD, Metadata, Rig, bearer, refused

Waiting = Callable[[], list[str]]


@pytest.fixture
def waiting(rig: Rig, url: str, monkeypatch: pytest.MonkeyPatch) -> Waiting:
    """The actions of the records that wait for Audit, which is away."""

    async def away(_: object) -> NoReturn:
        raise ServiceUnavailable("Audit is away")

    monkeypatch.setattr(rig.audits, "AppendRecords", away)

    def read() -> list[str]:
        with psycopg.connect(url) as connection:
            rows = connection.execute(
                "SELECT record->>'action' FROM identity.audit_outbox ORDER BY outbox_id"
            ).fetchall()
        return [action for (action,) in rows]

    return read


async def everything(rig: Rig) -> dict[str, Callable[[], Awaitable[Any]]]:
    """A call of each method that the contract puts on record, in an order in which each works."""
    users, roles, auth, tenants = user_service_pb2, role_service_pb2, auth_service_pb2, tenant_service_pb2
    operator, role = rig.operator, role_pb2.UserRole(name="research", description="theirs")
    ada = UUID(await rig.add("ada"))
    pair, _ = await rig.sign_in("ada"), await rig.sign_in("ada")
    who: Metadata = bearer(pair.access_token)
    started = await rig.auth.StartDeviceSignIn(auth.StartDeviceSignInRequest())
    await device_operations.decide(rig.room.desk.store, Caller(DEFAULT_TENANT, ada), started.user_code, approved=True)
    listed = await rig.auth.ListSignIns(auth.ListSignInsRequest(), metadata=who)
    other = next(each.sign_in_id for each in listed.sign_ins if not each.current)
    token = await rig.tokens.CreateApiToken(
        api_token_service_pb2.CreateApiTokenRequest(name="x", scopes=["*"]), metadata=who
    )
    group = tenant_service_pb2.GroupRole(group="it", role="admin")
    return {
        "UserService.CreateUser": lambda: rig.users.CreateUser(
            users.CreateUserRequest(handle="bob"), metadata=operator
        ),
        "UserService.UpdateUser": lambda: rig.users.UpdateUser(
            users.UpdateUserRequest(user=user_pb2.User(user_id="bob", email="bob@example.com")), metadata=operator
        ),
        "UserService.SetPassword": lambda: rig.users.SetPassword(
            users.SetPasswordRequest(user_id="bob", password=PASSWORD), metadata=operator
        ),
        "UserService.RevokeSignIns": lambda: rig.users.RevokeSignIns(
            users.RevokeSignInsRequest(user_id="bob"), metadata=operator
        ),
        "RoleService.CreateRole": lambda: rig.roles.CreateRole(roles.CreateRoleRequest(role=role), metadata=operator),
        "RoleService.UpdateRole": lambda: rig.roles.UpdateRole(
            roles.UpdateRoleRequest(role=role_pb2.UserRole(role_id="research", name="science")), metadata=operator
        ),
        "UserService.AssignRole": lambda: rig.users.AssignRole(
            users.AssignRoleRequest(user_id="bob", role_id="science"), metadata=operator
        ),
        "UserService.UnassignRole": lambda: rig.users.UnassignRole(
            users.UnassignRoleRequest(user_id="bob", role_id="science"), metadata=operator
        ),
        "RoleService.DeleteRole": lambda: rig.roles.DeleteRole(
            roles.DeleteRoleRequest(role_id="science"), metadata=operator
        ),
        "TenantService.UpdateTenant": lambda: rig.tenants.UpdateTenant(
            tenants.UpdateTenantRequest(tenant=tenants.Tenant(group_roles=[group])), metadata=operator
        ),
        "TenantService.CreateTenant": lambda: rig.tenants.CreateTenant(
            tenants.CreateTenantRequest(slug="acme", owner_handle="eve", owner_password=PASSWORD), metadata=operator
        ),
        "ApiTokenService.CreateApiToken": lambda: rig.tokens.CreateApiToken(
            api_token_service_pb2.CreateApiTokenRequest(name="y", scopes=["*"]), metadata=who
        ),
        "ApiTokenService.RevokeApiToken": lambda: rig.tokens.RevokeApiToken(
            api_token_service_pb2.RevokeApiTokenRequest(api_token_id=token.api_token.api_token_id), metadata=who
        ),
        "AuthService.RefreshTokens": lambda: rig.auth.RefreshTokens(
            auth.RefreshTokensRequest(refresh_token=pair.refresh_token, request_id=str(uuid4()))
        ),
        "AuthService.RevokeSignIn": lambda: rig.auth.RevokeSignIn(
            auth.RevokeSignInRequest(sign_in_id=other), metadata=who
        ),
        "AuthService.ChangePassword": lambda: rig.auth.ChangePassword(
            auth.ChangePasswordRequest(old_password=PASSWORD, new_password="another long one"), metadata=who
        ),
        "AuthService.SignIn": lambda: rig.sign_in("ada", "another long one"),
        "AuthService.StartDeviceSignIn": lambda: rig.auth.StartDeviceSignIn(auth.StartDeviceSignInRequest()),
        "AuthService.PollDeviceSignIn": lambda: rig.auth.PollDeviceSignIn(
            auth.PollDeviceSignInRequest(device_code=started.device_code)
        ),
        "AuthService.SignOut": lambda: rig.auth.SignOut(auth.SignOutRequest(), metadata=who),
    }


async def test_each_change_leaves_the_record_that_the_contract_names(rig: Rig, waiting: Waiting) -> None:
    calls = await everything(rig)
    await asyncio.sleep(0.1)
    for method, call in calls.items():
        before = len(waiting())
        await call()
        written = waiting()[before:]
        wanted = rule_of(f"/orginabox.api.v1.{method.replace('.', '/')}").audit_action
        assert wanted in written, f"{method} wrote {written} and not {wanted}"
    audited = _audited()
    assert audited <= calls.keys(), audited - calls.keys()


def _audited() -> set[str]:
    from google.protobuf import descriptor_pool

    mine = [name for name in SERVICES if "IdentityProvider" not in name]
    return {
        f"{name.rpartition('.')[2]}.{method.name}"
        for name in mine
        for method in descriptor_pool.Default().FindServiceByName(name).methods
        if rule_of(f"/{name}/{method.name}").audit_action
    }


async def test_what_was_refused_leaves_no_record_of_a_change(rig: Rig, waiting: Waiting) -> None:
    who = await rig.become("ada", "admin")
    before = waiting()
    with refused("PERMISSION_ESCALATION"):
        await rig.users.AssignRole(user_service_pb2.AssignRoleRequest(user_id="ada", role_id="owner"), metadata=who)
    with refused("ROLE_BUILT_IN"):
        await rig.roles.DeleteRole(role_service_pb2.DeleteRoleRequest(role_id="viewer"), metadata=rig.operator)
    assert waiting() == before


async def test_failures_and_thefts_are_on_record(rig: Rig, waiting: Waiting) -> None:
    await rig.add("ada")
    with refused("CREDENTIALS_REFUSED"):
        await rig.sign_in("ada", "wrong")
    pair = await rig.sign_in("ada")
    request = auth_service_pb2.RefreshTokensRequest(refresh_token=pair.refresh_token)
    await rig.auth.RefreshTokens(request)
    with refused("TOKEN_REUSED"):
        await rig.auth.RefreshTokens(request)
    assert waiting()[-4:] == ["auth.login_failed", "auth.login", "auth.token_refresh", "auth.token_reuse"]
