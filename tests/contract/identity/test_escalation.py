"""Nobody grants what they lack, and nobody touches who may do more, by whichever path they come."""

import grpc
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

from services.identity.api_token_operations import NewApiToken, create_api_token
from services.identity.authenticator import Credentials
from services.identity.sign_in import Origin, TokenRevoked
from services.identity.user import UserSuspended
from services.identity.user_operations import NewUser, create_user
from services.kit.ids import OPERATOR
from services.kit.tenancy import as_tenant
from tests.contract.identity.rig import PASSWORD, Metadata, Rig, bearer, refused

EVERY_FLAG = role_pb2.Permissions(
    agents=role_pb2.AgentPermissions(
        read=True, create=True, run=True, configure=True, delete=True, use_templates=["*"]
    ),
    memory=role_pb2.MemoryPermissions(
        read_own=True, read_team=True, read_org=True, write=True, delete=True, share=True
    ),
    tools=role_pb2.ToolPermissions(allowed=["*"]),
    admin=role_pb2.AdminPermissions(
        manage_users=True,
        manage_roles=True,
        manage_templates=True,
        manage_providers=True,
        view_audit_log=True,
        manage_tenant=True,
        manage_jobs=True,
        manage_keyring=True,
    ),
)


def permissions(**changes: object) -> role_pb2.Permissions:
    """What a helper of the administrators may do: people and roles, a few tools, and not for much."""
    found = role_pb2.Permissions(
        agents=role_pb2.AgentPermissions(read=True, run=True),
        tools=role_pb2.ToolPermissions(allowed=["*"], denied=["bash"]),
        admin=role_pb2.AdminPermissions(manage_users=True, manage_roles=True),
        cost=role_pb2.CostLimits(monthly_limit_usd=50),
    )
    for name, value in changes.items():
        getattr(found, name).CopyFrom(value)
    return found


async def role(rig: Rig, name: str, wanted: role_pb2.Permissions, by: Metadata | None = None) -> str:
    request = role_service_pb2.CreateRoleRequest(role=role_pb2.UserRole(name=name, permissions=wanted))
    return str((await rig.roles.CreateRole(request, metadata=by or rig.operator)).role.role_id)


async def assign(rig: Rig, user: str, name: str, by: Metadata) -> None:
    await rig.users.AssignRole(user_service_pb2.AssignRoleRequest(user_id=user, role_id=name), metadata=by)


async def unassign(rig: Rig, user: str, name: str, by: Metadata) -> None:
    await rig.users.UnassignRole(user_service_pb2.UnassignRoleRequest(user_id=user, role_id=name), metadata=by)


async def update(rig: Rig, name: str, wanted: role_pb2.Permissions, by: Metadata) -> None:
    request = role_service_pb2.UpdateRoleRequest(role=role_pb2.UserRole(role_id=name, name=name, permissions=wanted))
    await rig.roles.UpdateRole(request, metadata=by)


async def helper(rig: Rig) -> Metadata:
    """Somebody who manages users and roles, and may not do everything."""
    await role(rig, "helper", permissions())
    return await rig.become("helper", "helper")


LACKING = {
    "a flag": (permissions(admin=role_pb2.AdminPermissions(manage_tenant=True)), "admin.manage_tenant"),
    "a tool": (permissions(tools=role_pb2.ToolPermissions(allowed=["bash"])), "tools.allowed"),
    "every tool": (permissions(tools=role_pb2.ToolPermissions(allowed=["*"])), "tools.allowed"),
    "a template": (permissions(agents=role_pb2.AgentPermissions(use_templates=["x"])), "agents.use_templates"),
    "more money": (permissions(cost=role_pb2.CostLimits(monthly_limit_usd=51)), "cost.monthly_limit_usd"),
    "no limit": (permissions(cost=role_pb2.CostLimits(per_request_limit_usd=1)), "cost.monthly_limit_usd"),
    "the box": (permissions(admin=role_pb2.AdminPermissions(manage_box=True)), "admin.manage_box"),
    "everything": (EVERY_FLAG, "admin.manage_jobs"),
}


@pytest.mark.parametrize("what", LACKING)
async def test_no_role_is_made_that_may_do_more_than_its_maker(rig: Rig, what: str) -> None:
    wanted, _ = LACKING[what]
    who = await helper(rig)
    with refused("PERMISSION_ESCALATION"):
        await role(rig, "mighty", wanted, who)
    await role(rig, "mine", permissions(), who)
    with refused("PERMISSION_ESCALATION"):
        await update(rig, "mine", wanted, who)
    with refused("PERMISSION_ESCALATION"):
        await update(rig, "helper", wanted, who)  # the role that they have themselves


async def test_no_role_is_given_that_may_do_more_than_the_giver(rig: Rig) -> None:
    who = await helper(rig)
    await rig.add("ada", "viewer", by=rig.operator)
    await role(rig, "little", permissions(), who)
    for name in ("owner", "admin", "member", "viewer"):  # even viewer has no limit on what it costs
        for user in ("ada", "helper"):
            with refused("PERMISSION_ESCALATION"):
                await assign(rig, user, name, who)
        with refused("PERMISSION_ESCALATION"):
            await rig.add("eve", name, by=who)
    with refused("PERMISSION_ESCALATION"):
        await rig.add("eve", by=who)  # the tenant's default role is member
    await rig.add("eve", "little", by=who)


async def test_an_administrator_makes_no_owner(rig: Rig) -> None:
    who = await rig.become("ada", "admin")
    with refused("PERMISSION_ESCALATION"):
        await assign(rig, "ada", "owner", who)
    with refused("PERMISSION_ESCALATION"):
        await rig.add("eve", "owner", by=who)
    await assign(rig, await rig.add("bob", "viewer", by=who), "admin", who)


async def test_nobody_touches_who_may_do_more(rig: Rig) -> None:
    who = await rig.become("ada", "admin")
    await rig.add("owner", "owner")
    suspended = user_pb2.User(user_id="owner", status=user_pb2.USER_STATUS_SUSPENDED)
    with refused("PERMISSION_ESCALATION"):
        await rig.users.UpdateUser(user_service_pb2.UpdateUserRequest(user=suspended), metadata=who)
    with refused("PERMISSION_ESCALATION"):
        await rig.users.SetPassword(
            user_service_pb2.SetPasswordRequest(user_id="owner", password="mine from now on"), metadata=who
        )
    with refused("PERMISSION_ESCALATION"):
        await rig.users.RevokeSignIns(user_service_pb2.RevokeSignInsRequest(user_id="owner"), metadata=who)
    with refused("PERMISSION_ESCALATION"):
        await unassign(rig, "owner", "owner", who)
    with refused("PERMISSION_ESCALATION"):
        await assign(rig, "owner", "viewer", who)
    assert await rig.sign_in("owner")


@pytest.mark.parametrize("target", ["operator", str(OPERATOR)])
async def test_no_owner_becomes_the_operator_of_the_box(rig: Rig, target: str) -> None:
    who = await rig.become("ada", "owner")
    with refused("PERMISSION_ESCALATION"):
        await rig.users.SetPassword(
            user_service_pb2.SetPasswordRequest(user_id=target, password="mine from now on"), metadata=who
        )
    with refused("PERMISSION_ESCALATION"):
        await rig.users.UpdateUser(
            user_service_pb2.UpdateUserRequest(user=user_pb2.User(user_id=target, handle="gone")), metadata=who
        )
    with refused("PERMISSION_DENIED"):
        await rig.tenants.ListTenants(tenant_service_pb2.ListTenantsRequest(), metadata=who)


async def test_what_a_role_denies_is_not_shaken_off(rig: Rig) -> None:
    """A role can also take: whoever manages roles may not free themselves or others of it."""
    await role(rig, "no-bash", role_pb2.Permissions(tools=role_pb2.ToolPermissions(denied=["bash"])))
    await role(rig, "cheap", role_pb2.Permissions(cost=role_pb2.CostLimits(monthly_limit_usd=5)))
    who = await rig.become("ada", "admin", "no-bash", "cheap")
    await rig.add("bob", "member", "no-bash", "cheap")
    for user in ("ada", "bob"):
        for name in ("no-bash", "cheap"):
            with refused("PERMISSION_ESCALATION"):
                await unassign(rig, user, name, who)
    for name in ("no-bash", "cheap"):
        with refused("PERMISSION_ESCALATION"):
            await update(rig, name, role_pb2.Permissions(), who)
        with refused("PERMISSION_ESCALATION"):
            await rig.roles.DeleteRole(role_service_pb2.DeleteRoleRequest(role_id=name), metadata=who)
    for name in ("no-bash", "cheap"):
        await unassign(rig, "ada", name, rig.operator)
    await unassign(rig, "bob", "no-bash", who)


async def test_no_group_and_no_newcomer_gets_what_the_giver_lacks(rig: Rig) -> None:
    await role(rig, "steward", permissions(admin=role_pb2.AdminPermissions(manage_tenant=True)))
    who = await rig.become("ada", "steward")

    async def change(by: Metadata, **values: object) -> None:
        request = tenant_service_pb2.UpdateTenantRequest(tenant=tenant_service_pb2.Tenant(**values))  # type: ignore[arg-type]
        request.update_mask.paths.extend(values)
        await rig.tenants.UpdateTenant(request, metadata=by)

    def group(name: str) -> tenant_service_pb2.GroupRole:
        return tenant_service_pb2.GroupRole(group="everybody", role=name)

    for name in ("owner", "admin", "member"):
        with refused("PERMISSION_ESCALATION"):
            await change(who, group_roles=[group(name)])
    for name in ("owner", "admin", "viewer"):
        with refused("PERMISSION_ESCALATION"):
            await change(who, default_role=name)
    with refused("ROLE_NOT_FOUND"):
        await change(who, default_role="no-such-role")
    await change(who, group_roles=[group("steward")], default_role="steward", name="Acme")
    found = (await rig.tenants.GetTenant(tenant_service_pb2.GetTenantRequest(), metadata=who)).tenant
    assert (found.name, found.default_role, list(found.group_roles)) == ("Acme", "steward", [group("steward")])


async def test_a_token_may_do_no_more_than_its_scopes_and_its_user_at_that_moment(rig: Rig) -> None:
    user_id = await rig.add("ada", "member")
    who = bearer((await rig.sign_in("ada")).access_token)
    for scopes in (["admin.manage_users"], ["agents.run", "admin.manage_box"]):
        with refused("PERMISSION_ESCALATION"):
            await token(rig, who, *scopes)
    with refused("INVALID_ARGUMENT"):
        await token(rig, who, "no.such")
    narrow, wide = await token(rig, who, "agents.run"), await token(rig, who, "*")
    assert await rig.may(narrow) == {"agents.run"}
    assert await rig.may(wide) == await rig.may(who)
    await assign(rig, user_id, "admin", rig.operator)
    assert await rig.may(narrow) == {"agents.run"}
    assert "admin.manage_users" in await rig.may(wide)
    await unassign(rig, user_id, "admin", rig.operator)
    await unassign(rig, user_id, "member", rig.operator)
    assert await rig.may(narrow) == set()
    assert await rig.may(wide) == set()


async def token(rig: Rig, who: Metadata, *scopes: str) -> Metadata:
    request = api_token_service_pb2.CreateApiTokenRequest(name="test", scopes=scopes)
    return bearer((await rig.tokens.CreateApiToken(request, metadata=who)).token)


async def test_a_token_makes_no_tokens_and_gives_no_more_than_its_scopes(rig: Rig) -> None:
    who = await rig.become("ada", "owner")
    narrow = await token(rig, who, "admin.manage_users", "admin.manage_roles", "admin.manage_tenant")
    for scopes in (["admin.manage_users"], ["*"]):
        with refused("PERMISSION_ESCALATION"):
            await token(rig, narrow, *scopes)
    with refused("PERMISSION_ESCALATION"):
        await assign(rig, "ada", "admin", narrow)
    with refused("PERMISSION_ESCALATION"):
        await rig.add("eve", "viewer", by=narrow)
    with refused("PERMISSION_ESCALATION"):
        await role(rig, "mighty", EVERY_FLAG, narrow)
    with refused("PERMISSION_ESCALATION"):  # its user may do more than it
        await rig.users.SetPassword(
            user_service_pb2.SetPasswordRequest(user_id="ada", password="mine from now on"), metadata=narrow
        )


async def test_the_token_of_who_is_suspended_or_signed_out_by_an_administrator_is_out(rig: Rig) -> None:
    who = await rig.become("ada", "member")
    first = await token(rig, who, "*")
    await rig.users.RevokeSignIns(user_service_pb2.RevokeSignInsRequest(user_id="ada"), metadata=rig.operator)
    await rig.may(first)
    answer = await rig.users.RevokeSignIns(
        user_service_pb2.RevokeSignInsRequest(user_id="ada", api_tokens=True), metadata=rig.operator
    )
    assert answer.api_tokens == 1
    with refused("TOKEN_REVOKED"):
        await rig.may(first)
    second = await token(rig, bearer((await rig.sign_in("ada")).access_token), "*")
    for status, reason in (("SUSPENDED", "USER_SUSPENDED"), ("ACTIVE", "TOKEN_REVOKED")):
        value = user_pb2.UserStatus.Value(f"USER_STATUS_{status}")
        await rig.users.UpdateUser(
            user_service_pb2.UpdateUserRequest(user=user_pb2.User(user_id="ada", status=value)), metadata=rig.operator
        )
        with refused(reason):
            await rig.may(second)


async def test_the_last_owner_stays(rig: Rig) -> None:
    await rig.tenants.CreateTenant(
        tenant_service_pb2.CreateTenantRequest(slug="acme", owner_handle="ada", owner_password=PASSWORD),
        metadata=rig.operator,
    )
    who = bearer((await rig.sign_in("ada", tenant="acme")).access_token)
    with refused("LAST_OWNER"):
        await unassign(rig, "ada", "owner", who)
    for status in (user_pb2.USER_STATUS_SUSPENDED, user_pb2.USER_STATUS_DEACTIVATED):
        with refused("LAST_OWNER"):
            await rig.users.UpdateUser(
                user_service_pb2.UpdateUserRequest(user=user_pb2.User(user_id="ada", status=status)), metadata=who
            )
    await rig.add("bob", "owner", by=who)
    await unassign(rig, "ada", "owner", who)
    with refused("PERMISSION_DENIED"):
        await unassign(rig, "bob", "owner", who)


async def test_the_operator_of_the_box_stays_one(rig: Rig) -> None:
    await rig.add("ada", "owner")
    with refused("LAST_OWNER"):
        await unassign(rig, "operator", "owner", rig.operator)
    with refused("LAST_OWNER"):
        await rig.users.UpdateUser(
            user_service_pb2.UpdateUserRequest(
                user=user_pb2.User(user_id="operator", status=user_pb2.USER_STATUS_SUSPENDED)
            ),
            metadata=rig.operator,
        )


async def test_two_owners_cannot_take_it_from_each_other_at_once(rig: Rig) -> None:
    import asyncio

    await rig.tenants.CreateTenant(
        tenant_service_pb2.CreateTenantRequest(slug="acme", owner_handle="ada", owner_password=PASSWORD),
        metadata=rig.operator,
    )
    ada = bearer((await rig.sign_in("ada", tenant="acme")).access_token)
    for _ in range(5):
        answers = await asyncio.gather(
            rig.users.CreateUser(
                user_service_pb2.CreateUserRequest(handle="bob", password=PASSWORD, roles=["owner"]), metadata=ada
            ),
            return_exceptions=True,
        )
        assert answers
        await assign(rig, "bob", "owner", ada)
        bob = bearer((await rig.sign_in("bob", tenant="acme")).access_token)
        taken = await asyncio.gather(
            unassign(rig, "bob", "owner", ada), unassign(rig, "ada", "owner", bob), return_exceptions=True
        )
        assert sum(isinstance(answer, grpc.aio.AioRpcError) for answer in taken) == 1
        if taken[0] is not None:  # bob took it from ada
            await assign(rig, "ada", "owner", bob)


async def test_a_role_that_is_taken_counts_for_the_next_call(rig: Rig) -> None:
    who = await rig.become("ada", "admin")
    await rig.users.ListUsers(user_service_pb2.ListUsersRequest(), metadata=who)
    await unassign(rig, "ada", "admin", rig.operator)
    with refused("PERMISSION_DENIED"):
        await rig.users.ListUsers(user_service_pb2.ListUsersRequest(), metadata=who)
    with refused("PERMISSION_ESCALATION"):
        await token(rig, who, "admin.manage_users")


async def test_a_role_that_changes_counts_for_its_holders_at_once(rig: Rig) -> None:
    await role(rig, "helper", permissions())
    who = await rig.become("ada", "helper")
    await rig.users.ListUsers(user_service_pb2.ListUsersRequest(), metadata=who)
    await update(rig, "helper", permissions(admin=role_pb2.AdminPermissions(manage_roles=True)), rig.operator)
    with refused("PERMISSION_DENIED"):
        await rig.users.ListUsers(user_service_pb2.ListUsersRequest(), metadata=who)
    await rig.roles.DeleteRole(role_service_pb2.DeleteRoleRequest(role_id="helper"), metadata=rig.operator)
    found = await rig.auth.GetMe(auth_service_pb2.GetMeRequest(), metadata=who)
    assert not found.user.roles
    assert not await rig.may(who)


async def test_the_roles_that_came_with_the_box_stay_as_they_are(rig: Rig) -> None:
    for name in ("owner", "admin", "member", "viewer"):
        with refused("ROLE_BUILT_IN"):
            await update(rig, name, role_pb2.Permissions(), rig.operator)
        with refused("ROLE_BUILT_IN"):
            await rig.roles.DeleteRole(role_service_pb2.DeleteRoleRequest(role_id=name), metadata=rig.operator)


@pytest.mark.parametrize("ending", ["revoke", "suspend"])
async def test_what_was_on_its_way_when_a_sign_in_ended_makes_nothing_that_outlives_it(rig: Rig, ending: str) -> None:
    who = await rig.become("ada", "admin")
    credentials = Credentials(str(dict(who)["authorization"]), Origin())
    ada = await rig.room.authenticator.authenticate(credentials)  # the gate has let the call in
    if ending == "revoke":
        asked = user_service_pb2.RevokeSignInsRequest(user_id="ada", api_tokens=True)
        await rig.users.RevokeSignIns(asked, metadata=rig.operator)
    else:
        changed = user_pb2.User(user_id="ada", status=user_pb2.USER_STATUS_SUSPENDED)
        await rig.users.UpdateUser(user_service_pb2.UpdateUserRequest(user=changed), metadata=rig.operator)

    store, room = rig.room.desk.store, rig.room
    with as_tenant(ada.tenant_id):
        with pytest.raises((TokenRevoked, UserSuspended)):
            await create_api_token(store, ada, NewApiToken("later", frozenset({"*"}), None), None)
        wanted = NewUser("eve", "", "", "", ("admin",))
        with pytest.raises((TokenRevoked, UserSuspended)):
            await create_user(store, room.desk.passwords, ada, wanted, None)
