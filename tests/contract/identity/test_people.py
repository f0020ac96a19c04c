"""Users, roles, API tokens and tenants, as those who manage them see them, and as the people of other tenants do."""

import asyncio
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp
from orginabox.api.v1 import (
    api_token_service_pb2 as token_pb,
)
from orginabox.api.v1 import (
    auth_service_pb2,
    role_pb2,
    role_service_pb2,
    tenant_service_pb2,
    user_pb2,
    user_service_pb2,
)

from services.identity import tenant_operations
from services.kit.ids import DEFAULT_TENANT
from services.kit.tenancy import as_tenant
from tests.contract.identity.rig import PASSWORD, Metadata, Rig, bearer, refused


async def test_a_user_is_added_once_for_a_repeated_request(rig: Rig) -> None:
    request = user_service_pb2.CreateUserRequest(
        handle="ada", email="ada@example.com", password=PASSWORD, request_id=str(uuid.uuid4())
    )
    first = await rig.users.CreateUser(request, metadata=rig.operator)
    assert first.user == (await rig.users.CreateUser(request, metadata=rig.operator)).user
    assert list(first.user.roles) == ["member"]
    assert first.user.display_name == "ada"
    with refused("REQUEST_ID_REUSED"):
        request.email = "other@example.com"
        await rig.users.CreateUser(request, metadata=rig.operator)
    with refused("USER_EXISTS"):
        await rig.users.CreateUser(user_service_pb2.CreateUserRequest(handle="ada"), metadata=rig.operator)
    record = await rig.audits.until("admin.user_create")
    assert record.target == f"user:{first.user.user_id}"
    assert PASSWORD not in str(record)


@pytest.mark.parametrize("handle", ["", "Ada", "-ada", "a b", "ada\n", "ä", "a" * 128])
async def test_a_handle_that_cannot_be_said_is_refused(rig: Rig, handle: str) -> None:
    with refused("INVALID_ARGUMENT"):
        await rig.users.CreateUser(user_service_pb2.CreateUserRequest(handle=handle), metadata=rig.operator)
    await rig.add("ada")
    if handle:
        with refused("INVALID_ARGUMENT"):
            await change(rig, user_pb2.User(user_id="ada", handle=handle), "handle")


async def change(rig: Rig, user: user_pb2.User, *fields: str, by: Metadata | None = None) -> user_pb2.User:
    request = user_service_pb2.UpdateUserRequest(user=user, update_mask=FieldMask(paths=fields))
    return (await rig.users.UpdateUser(request, metadata=by or rig.operator)).user


async def test_a_user_is_changed_as_far_as_the_mask_says(rig: Rig) -> None:
    user_id = await rig.add("ada")
    await rig.add("bob")
    changed = await change(rig, user_pb2.User(user_id=user_id, handle="countess", display_name="Ada"), "handle")
    assert (changed.handle, changed.display_name) == ("countess", "ada")
    assert (await change(rig, user_pb2.User(user_id="countess", display_name="Ada"))).display_name == "Ada"
    assert not (await change(rig, user_pb2.User(user_id="countess"), "email")).email
    for user, fields, reason in (
        (user_pb2.User(user_id="countess", handle="bob"), ("handle",), "USER_EXISTS"),
        (user_pb2.User(user_id="countess", email="nowhere"), ("email",), "INVALID_ARGUMENT"),
        (user_pb2.User(user_id="countess", roles=["owner"]), ("roles",), "INVALID_ARGUMENT"),
        (user_pb2.User(user_id="countess"), ("status",), "INVALID_ARGUMENT"),
        (user_pb2.User(user_id="nobody"), ("email",), "USER_NOT_FOUND"),
    ):
        with refused(reason):
            await change(rig, user, *fields)


async def test_lists_are_paged_without_a_gap(rig: Rig) -> None:
    for number in range(7):
        await rig.add(f"user-{number}")
    seen: list[str] = []
    token = ""
    while True:
        page = await rig.users.ListUsers(
            user_service_pb2.ListUsersRequest(page_size=3, page_token=token), metadata=rig.operator
        )
        seen += [user.handle for user in page.users]
        if not (token := page.next_page_token):
            break
    assert seen == ["operator", *(f"user-{number}" for number in range(7))]
    for name in ("zeta", "alpha"):
        role = role_pb2.UserRole(name=name)
        await rig.roles.CreateRole(role_service_pb2.CreateRoleRequest(role=role), metadata=rig.operator)
    seen, token = [], ""
    while True:
        found = await rig.roles.ListRoles(
            role_service_pb2.ListRolesRequest(page_size=1, page_token=token), metadata=rig.operator
        )
        seen += [role.name for role in found.roles]
        if not (token := found.next_page_token):
            break
    assert seen == ["admin", "member", "owner", "viewer", "alpha", "zeta"]


async def test_a_role_is_made_once_changed_and_deleted(rig: Rig) -> None:
    role = role_pb2.UserRole(
        name="research", permissions=role_pb2.Permissions(agents=role_pb2.AgentPermissions(run=True))
    )
    request = role_service_pb2.CreateRoleRequest(role=role, request_id=str(uuid.uuid4()))
    made = (await rig.roles.CreateRole(request, metadata=rig.operator)).role
    assert made == (await rig.roles.CreateRole(request, metadata=rig.operator)).role
    with refused("ROLE_EXISTS"):
        await rig.roles.CreateRole(role_service_pb2.CreateRoleRequest(role=role), metadata=rig.operator)
    changed = role_pb2.UserRole(role_id="research", name="science", description="for them")
    update = role_service_pb2.UpdateRoleRequest(role=changed, update_mask=FieldMask(paths=["name", "description"]))
    after = (await rig.roles.UpdateRole(update, metadata=rig.operator)).role
    assert (after.role_id, after.name, after.permissions.agents.run) == (made.role_id, "science", True)
    with refused("ROLE_EXISTS"):
        changed = role_pb2.UserRole(role_id="science", name="viewer")
        await rig.roles.UpdateRole(role_service_pb2.UpdateRoleRequest(role=changed), metadata=rig.operator)
    await rig.roles.DeleteRole(role_service_pb2.DeleteRoleRequest(role_id="science"), metadata=rig.operator)
    with refused("ROLE_NOT_FOUND"):
        await rig.roles.GetRole(role_service_pb2.GetRoleRequest(role_id=made.role_id), metadata=rig.operator)
    assert {"admin.role_create", "admin.role_update", "admin.role_delete"} <= {
        (await rig.audits.until(f"admin.role_{verb}")).action for verb in ("create", "update", "delete")
    }


async def test_an_api_token_is_shown_once_used_and_ended(rig: Rig, url: str) -> None:
    who = await rig.become("ada")
    request = token_pb.CreateApiTokenRequest(name="ci", scopes=["agents.run"], request_id=str(uuid.uuid4()))
    made = await rig.tokens.CreateApiToken(request, metadata=who)
    assert made.token.startswith(made.api_token.prefix)
    again = await rig.tokens.CreateApiToken(request, metadata=who)
    assert (again.token, again.api_token.api_token_id) == ("", made.api_token.api_token_id)
    with psycopg.connect(url) as connection:
        assert made.token not in str(connection.execute("SELECT * FROM identity.api_token").fetchall())
    await rig.auth.GetMe(auth_service_pb2.GetMeRequest(), metadata=bearer(made.token))
    await rig.room.authenticator.flush()
    (listed,) = (await rig.tokens.ListApiTokens(token_pb.ListApiTokensRequest(), metadata=who)).api_tokens
    assert listed.HasField("last_use_time")
    other = made.token[:-1] + ("A" if made.token[-1] != "A" else "B")
    for wrong in (other, made.token.replace(made.api_token.api_token_id.replace("-", ""), uuid.uuid4().hex)):
        with refused("TOKEN_INVALID"):
            await rig.auth.GetMe(auth_service_pb2.GetMeRequest(), metadata=bearer(wrong))
    revoke = token_pb.RevokeApiTokenRequest(api_token_id=made.api_token.api_token_id)
    with refused("API_TOKEN_NOT_FOUND"):
        await rig.tokens.RevokeApiToken(revoke, metadata=await rig.become("bob"))
    await rig.tokens.RevokeApiToken(revoke, metadata=who)
    with refused("TOKEN_REVOKED"):
        await rig.auth.GetMe(auth_service_pb2.GetMeRequest(), metadata=bearer(made.token))
    with refused("API_TOKEN_NOT_FOUND"):
        await rig.tokens.RevokeApiToken(revoke, metadata=who)


async def test_an_api_token_ends_when_it_should(rig: Rig, url: str) -> None:
    who = await rig.become("ada")
    late = Timestamp()
    late.FromDatetime(datetime.now(UTC) + timedelta(days=400))
    for wrong in (late, Timestamp(seconds=1), Timestamp(seconds=2**60)):
        with refused("INVALID_ARGUMENT"):
            await rig.tokens.CreateApiToken(
                token_pb.CreateApiTokenRequest(name="ci", scopes=["*"], expire_time=wrong), metadata=who
            )
    soon = Timestamp()
    soon.FromDatetime(datetime.now(UTC) + timedelta(seconds=1))
    made = await rig.tokens.CreateApiToken(
        token_pb.CreateApiTokenRequest(name="ci", scopes=["*"], expire_time=soon), metadata=who
    )
    await rig.auth.GetMe(auth_service_pb2.GetMeRequest(), metadata=bearer(made.token))
    await asyncio.sleep(1.1)
    with refused("TOKEN_EXPIRED"):
        await rig.auth.GetMe(auth_service_pb2.GetMeRequest(), metadata=bearer(made.token))


async def test_groups_give_and_take_their_roles_and_leave_the_others(rig: Rig) -> None:
    await rig.add("ada", "viewer")
    tenant = tenant_service_pb2.Tenant(
        group_roles=[
            tenant_service_pb2.GroupRole(group="staff", role="member"),
            tenant_service_pb2.GroupRole(group="it", role="admin"),
            tenant_service_pb2.GroupRole(group="it", role="member"),
        ]
    )
    await rig.tenants.UpdateTenant(tenant_service_pb2.UpdateTenantRequest(tenant=tenant), metadata=rig.operator)
    store = rig.room.desk.store
    for groups, roles in (
        (["staff"], ["member", "viewer"]),
        (["it"], ["admin", "member", "viewer"]),
        (["others"], ["viewer"]),
        ([], ["viewer"]),
    ):
        with as_tenant(DEFAULT_TENANT):
            async with store.transaction() as tx:
                await tenant_operations.apply_groups(tx, await tx.user(DEFAULT_TENANT, "ada"), groups)
                assert list((await tx.user(DEFAULT_TENANT, "ada")).roles) == roles


async def test_a_tenant_is_made_once_with_its_roles_and_its_owner(rig: Rig) -> None:
    request = tenant_service_pb2.CreateTenantRequest(
        slug="acme", owner_handle="ada", owner_password=PASSWORD, request_id=str(uuid.uuid4())
    )
    made = (await rig.tenants.CreateTenant(request, metadata=rig.operator)).tenant
    assert (made.name, made.default_role) == ("acme", "member")
    assert made == (await rig.tenants.CreateTenant(request, metadata=rig.operator)).tenant
    request.request_id = ""
    with refused("TENANT_EXISTS"):
        await rig.tenants.CreateTenant(request, metadata=rig.operator)
    request.slug, request.owner_password = "other", "password1234"
    with refused("PASSWORD_REFUSED"):
        await rig.tenants.CreateTenant(request, metadata=rig.operator)
    page = await rig.tenants.ListTenants(tenant_service_pb2.ListTenantsRequest(), metadata=rig.operator)
    assert [tenant.slug for tenant in page.tenants] == ["acme", "default"]
    with refused("CREDENTIALS_REFUSED"):
        await rig.sign_in("ada")
    who = bearer((await rig.sign_in("ada", tenant="acme")).access_token)
    found = await rig.auth.GetMe(auth_service_pb2.GetMeRequest(), metadata=who)
    assert (found.tenant_id, list(found.user.roles)) == (made.tenant_id, ["owner"])


@pytest.fixture
async def acme(rig: Rig) -> Metadata:
    """The owner of another tenant."""
    request = tenant_service_pb2.CreateTenantRequest(slug="acme", owner_handle="eve", owner_password=PASSWORD)
    await rig.tenants.CreateTenant(request, metadata=rig.operator)
    return bearer((await rig.sign_in("eve", tenant="acme")).access_token)


async def test_the_people_of_another_tenant_find_nothing(rig: Rig, acme: Metadata) -> None:
    ada = await rig.add("ada")
    role = role_pb2.UserRole(name="secret")
    made = (await rig.roles.CreateRole(role_service_pb2.CreateRoleRequest(role=role), metadata=rig.operator)).role
    session = await rig.sign_in("ada")
    sign_in = await rig.auth.ListSignIns(auth_service_pb2.ListSignInsRequest(), metadata=bearer(session.access_token))
    token = await rig.tokens.CreateApiToken(
        token_pb.CreateApiTokenRequest(name="ci", scopes=["*"]), metadata=bearer(session.access_token)
    )
    users, roles = user_service_pb2, role_service_pb2
    calls: list[tuple[Any, Any, str]] = []
    for name in (ada, "ada"):
        calls += [
            (rig.users.GetUser, users.GetUserRequest(user_id=name), "USER_NOT_FOUND"),
            (
                rig.users.UpdateUser,
                users.UpdateUserRequest(user=user_pb2.User(user_id=name, email="a@b.c")),
                "USER_NOT_FOUND",
            ),
            (rig.users.SetPassword, users.SetPasswordRequest(user_id=name, password=PASSWORD), "USER_NOT_FOUND"),
            (rig.users.RevokeSignIns, users.RevokeSignInsRequest(user_id=name), "USER_NOT_FOUND"),
            (rig.users.AssignRole, users.AssignRoleRequest(user_id=name, role_id="viewer"), "USER_NOT_FOUND"),
            (rig.users.UnassignRole, users.UnassignRoleRequest(user_id=name, role_id="viewer"), "USER_NOT_FOUND"),
        ]
    for name in (made.role_id, "secret"):
        changed = role_pb2.UserRole(role_id=name, name="mine")
        calls += [
            (rig.roles.GetRole, roles.GetRoleRequest(role_id=name), "ROLE_NOT_FOUND"),
            (rig.roles.UpdateRole, roles.UpdateRoleRequest(role=changed), "ROLE_NOT_FOUND"),
            (rig.roles.DeleteRole, roles.DeleteRoleRequest(role_id=name), "ROLE_NOT_FOUND"),
            (rig.users.AssignRole, users.AssignRoleRequest(user_id="eve", role_id=name), "ROLE_NOT_FOUND"),
            (rig.users.CreateUser, users.CreateUserRequest(handle="mallory", roles=[name]), "ROLE_NOT_FOUND"),
        ]
    calls += [
        (
            rig.auth.RevokeSignIn,
            auth_service_pb2.RevokeSignInRequest(sign_in_id=sign_in.sign_ins[0].sign_in_id),
            "SIGN_IN_NOT_FOUND",
        ),
        (
            rig.tokens.RevokeApiToken,
            token_pb.RevokeApiTokenRequest(api_token_id=token.api_token.api_token_id),
            "API_TOKEN_NOT_FOUND",
        ),
        (rig.tenants.ListTenants, tenant_service_pb2.ListTenantsRequest(), "PERMISSION_DENIED"),
    ]
    for method, request, reason in calls:
        with refused(reason):
            await method(request, metadata=acme)
    listed = await rig.users.ListUsers(users.ListUsersRequest(), metadata=acme)
    assert [user.handle for user in listed.users] == ["eve"]
    shown = await rig.roles.ListRoles(roles.ListRolesRequest(), metadata=acme)
    assert {role.name for role in shown.roles} == {"owner", "admin", "member", "viewer"}
    await rig.add("ada", by=acme)  # a handle is of one tenant
    await rig.auth.GetMe(auth_service_pb2.GetMeRequest(), metadata=bearer(session.access_token))


async def test_a_token_that_names_another_tenant_opens_neither(rig: Rig, acme: Metadata) -> None:
    """Even who holds the signing key finds no sign-in across tenants."""
    user_id = uuid.UUID(await rig.add("ada"))
    session = await rig.sign_in("ada")
    tokens = rig.room.authenticator._access_tokens
    claims = tokens.verify(session.access_token)
    other = tokens.verify(acme[0][1].removeprefix("Bearer "))
    now = datetime.now(UTC)
    for tenant, who, sign_in in (
        (other.tenant_id, user_id, claims.sign_in_id),
        (claims.tenant_id, other.user_id, claims.sign_in_id),
        (claims.tenant_id, user_id, other.sign_in_id),
        (uuid.uuid4(), user_id, claims.sign_in_id),
    ):
        forged = tokens.sign(who, tenant, sign_in, [], now)
        for _ in range(2):  # the second time from what is remembered
            with pytest.raises(Exception, match="sign in again"):
                await rig.auth.GetMe(auth_service_pb2.GetMeRequest(), metadata=bearer(forged))
            await rig.auth.GetMe(auth_service_pb2.GetMeRequest(), metadata=bearer(session.access_token))
