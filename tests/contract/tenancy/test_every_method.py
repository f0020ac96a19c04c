"""Every public method, called by a tenant with everything that another tenant has."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor

from services.api.__main__ import SERVICES
from services.box.roles import migrations
from services.kit.ids import DEFAULT_TENANT
from services.kit.policy import Access, rule_of
from tests.contract.tenancy.mesh import OPERATOR, PASSWORD, Answer, Mesh, running
from tests.postgres import TestServer
from tests.store.tenancy.filled import tables

MARK = "aardvark"
"""Stands in every text that the first tenant says, and in nothing of the other."""

OWN = {"OK"}
"""The method is about the caller's tenant: it works, and tells nothing of another."""
GONE = {"NOT_FOUND"}
"""The method is about what the first tenant has: for the other it does not exist."""

EXPECTED: dict[str, set[str]] = {
    "SessionService.CreateSession": OWN,
    "SessionService.ListSessions": OWN,
    "SessionService.GetSession": GONE,
    "SessionService.UpdateSession": GONE,
    "SessionService.DeleteSession": GONE,
    "SessionService.ListMessages": GONE,
    "SessionService.ListInbox": GONE,
    "SessionService.Prompt": GONE,
    "TurnService.GetTurn": GONE,
    "TurnService.ListTurns": GONE,
    "TurnService.StreamTurnEvents": GONE,
    "TurnService.StreamTurnEventsAsText": GONE,
    "TurnService.UpdateTurn": GONE,
    "TurnService.AbortTurn": GONE,
    "TurnService.ReplyPermission": GONE,
    "ProviderService.CreateProvider": OWN,
    "ProviderService.ListProviders": OWN,
    "ProviderService.UpdateProvider": GONE,
    "ProviderService.DeleteProvider": GONE,
    "ProviderService.GetRuntimeStatus": OWN,
    "ProviderService.ApplyRuntime": OWN,
    "AuditService.ListAuditRecords": OWN,
    "AuditService.ExportAuditRecords": OWN,
    "AuditService.VerifyAuditLog": OWN,
    "AuditService.ListAuditCheckpoints": OWN,
    "AuditService.GetAuditKey": OWN,
    "AuditService.EraseAuditUser": OWN,  # of nothing: the user did nothing there
    "HealthService.GetHealth": OWN,
    "JobService.ListJobs": OWN,
    "JobService.GetJob": GONE,
    "JobService.CancelJob": GONE,
    "JobService.RetryJob": GONE,
    # What all tenants share is for the operator of the box alone.
    "JobService.PauseQueue": {"PERMISSION_DENIED"},
    "JobService.ResumeQueue": {"PERMISSION_DENIED"},
    "JobService.GetQueueStats": {"PERMISSION_DENIED"},
    "JobService.SetQueueShare": {"PERMISSION_DENIED"},
    "KeyringService.GetKeyringStatus": OWN,
    "KeyringService.RotateDataKeys": OWN,
    "KeyringService.RewrapDataKeys": {"PERMISSION_DENIED"},
    "AuthService.GetAuthStatus": OWN,
    "AuthService.SignIn": {"UNAUTHENTICATED"},
    "AuthService.RefreshTokens": {"UNAUTHENTICATED"},
    "AuthService.GetMe": OWN,
    "AuthService.ChangePassword": {"UNAUTHENTICATED", "INVALID_ARGUMENT", "PERMISSION_DENIED"},
    "AuthService.ListSignIns": OWN,
    "AuthService.RevokeSignIn": GONE,
    "AuthService.StartDeviceSignIn": OWN,
    "AuthService.PollDeviceSignIn": {"UNAUTHENTICATED", "NOT_FOUND", "FAILED_PRECONDITION"},
    # The first asks the provider for its addresses, and there is none.
    "IdentityProviderService.PutIdentityProvider": {"OK", "INVALID_ARGUMENT", "FAILED_PRECONDITION", "UNAVAILABLE"},
    "IdentityProviderService.ListIdentityProviders": OWN,
    "IdentityProviderService.DeleteIdentityProvider": GONE,
    "IdentityProviderService.RotateScimToken": OWN,
    "RoleService.CreateRole": OWN,
    "RoleService.ListRoles": OWN,
    "RoleService.GetRole": GONE,
    "RoleService.UpdateRole": GONE,
    "RoleService.DeleteRole": GONE,
    "TenantService.GetTenant": OWN,
    "TenantService.UpdateTenant": OWN,
    "TenantService.CreateTenant": {"PERMISSION_DENIED"},
    "TenantService.ListTenants": {"PERMISSION_DENIED"},
    "ApiTokenService.CreateApiToken": OWN,
    "ApiTokenService.ListApiTokens": OWN,
    "ApiTokenService.RevokeApiToken": GONE,
    "UserService.CreateUser": OWN,
    "UserService.ListUsers": OWN,
    "UserService.GetUser": GONE,
    "UserService.UpdateUser": GONE,
    "UserService.SetPassword": GONE,
    "UserService.RevokeSignIns": GONE,
    "UserService.AssignRole": GONE,
    "UserService.UnassignRole": GONE,
    "AuthService.SignOut": OWN,  # the last: it ends the sign-in of this test
}

SAID: dict[str, dict[str, Any]] = {
    "AuthService.GetAuthStatus": {"tenant": "theirs"},  # it tells anybody by which ways a tenant's people sign in
    "SessionService.CreateSession": {"title": "theirs"},
    "SessionService.UpdateSession": {"title": "theirs"},
    "SessionService.Prompt": {"text": "hello"},
    "TurnService.UpdateTurn": {"text": "hello"},
    "TurnService.ReplyPermission": {"permissionId": "per_1", "reply": "PERMISSION_REPLY_ONCE"},
    "ProviderService.CreateProvider": {
        "provider": {
            "providerId": "theirs",
            "kind": "PROVIDER_KIND_OLLAMA",
            "baseUrl": "http://1.1.1.1",
            "models": ["m"],
        }
    },
    "ProviderService.UpdateProvider": {"provider": {"defaultModel": "m"}},
    "AuthService.SignIn": {"password": PASSWORD, "tenant": "theirs"},
    "AuthService.RefreshTokens": {"refreshToken": "oiab-refresh-none"},
    "AuthService.ChangePassword": {"oldPassword": "not the password", "newPassword": "the sun was early"},
    "AuthService.PollDeviceSignIn": {"deviceCode": "none"},
    "IdentityProviderService.PutIdentityProvider": {
        "identityProvider": {"identityProviderId": "theirs", "issuer": "https://127.0.0.1:1", "clientId": "box"}
    },
    "RoleService.CreateRole": {"role": {"name": "theirs", "permissions": {}}},
    "RoleService.UpdateRole": {"role": {"name": "theirs", "description": "theirs"}, "updateMask": "description"},
    "TenantService.UpdateTenant": {"tenant": {"name": "Theirs"}, "updateMask": "name"},
    "TenantService.CreateTenant": {"slug": "third", "ownerHandle": "owner", "ownerPassword": PASSWORD},
    "ApiTokenService.CreateApiToken": {"name": "theirs", "scopes": ["agents.run"]},
    "UserService.CreateUser": {"handle": "theirs", "password": PASSWORD},
    "UserService.UpdateUser": {"user": {"displayName": "theirs"}, "updateMask": "displayName"},
    "UserService.SetPassword": {"password": "the sun was early"},
}
"""What a request needs beside the ids of the other tenant."""

RESTLESS = (
    *("audit_outbox", "outbox", "attempt", "sign_in", "api_token", "head", "record", "body", "checkpoint"),
    "pace",
    "device_sign_in",  # a device that nobody has approved yet counts as the first tenant's
)
"""Tables of which rows change by themselves, or by a tenant's own reading."""


def public_methods() -> dict[str, MethodDescriptor]:
    """Every method of the public contract that Api serves, by its short name."""
    pool = descriptor_pool.Default()
    return {
        f"{method.containing_service.name}.{method.name}": method
        for service in SERVICES
        for method in pool.FindServiceByName(service).methods
        if rule_of(f"/{service}/{method.name}").access is not Access.INTERNAL
    }


@dataclass
class Two:
    """Two tenants: the first has one of everything, the other has nothing."""

    mesh: Mesh
    url: str
    other: str
    ids: dict[str, str] = field(default_factory=dict)

    def request(self, name: str) -> dict[str, Any]:
        """A request that names all that the first tenant has."""
        return _filled(public_methods()[name].input_type, self.ids, SAID.get(name, {}))

    async def call(self, name: str, who: str, /, **fields: Any) -> Answer:
        """Call a method as somebody."""
        return await self.mesh.call(public_methods()[name], who, fields)

    async def made(self, name: str, who: str = OPERATOR, /, **fields: Any) -> Any:
        """What a method answers somebody whom it has to answer."""
        answer = await self.call(name, who, **fields)
        assert answer.code == "OK", (name, answer.text)
        return answer.messages[0]

    def kept(self) -> dict[str, list[str]]:
        """Every row of the first tenant that changes only when somebody changes it."""
        with psycopg.connect(self.url, autocommit=True) as administrator:
            return {
                str(table): sorted(
                    row
                    for (row,) in administrator.execute(
                        f"SELECT t::text FROM {table} t WHERE tenant_id = %s".encode(), (DEFAULT_TENANT,)
                    )
                )
                for table in tables(administrator, *migrations())
                if table.of_tenants and not table.partition and not table.name.startswith(RESTLESS)
            }


def _filled(message: Descriptor, ids: dict[str, str], said: dict[str, Any]) -> dict[str, Any]:
    found = {name: value for name, value in said.items() if not isinstance(value, dict)}
    for one in message.fields:
        if one.json_name in found:
            continue
        if one.name in ids and one.type == FieldDescriptor.TYPE_STRING and not one.is_repeated:
            found[one.json_name] = ids[one.name]
        elif one.json_name in said:
            found[one.json_name] = (
                _filled(one.message_type, ids, said[one.json_name]) | said[one.json_name]
                if one.message_type
                else said[one.json_name]
            )
    return found


@pytest.fixture(scope="module")
async def two(postgres: TestServer) -> AsyncIterator[Two]:
    url = postgres.database(*migrations())
    async with running(url) as mesh:
        two = Two(mesh, url, "")
        await _settle_in(two)
        yield two
    postgres.drop(url)


async def _settle_in(two: Two) -> None:
    session = (await two.made("SessionService.CreateSession", title=f"the {MARK}")).session
    turn = (await two.made("SessionService.Prompt", sessionId=session.session_id, text=f"an {MARK} speaks")).turn_id
    provider = {"providerId": MARK, "kind": "PROVIDER_KIND_OLLAMA", "baseUrl": "http://1.1.1.1", "models": ["m"]}
    await two.made("ProviderService.CreateProvider", provider=provider)
    user = (await two.made("UserService.CreateUser", handle=MARK, password=PASSWORD, roles=["admin"])).user
    role = (await two.made("RoleService.CreateRole", role={"name": MARK, "permissions": {}})).role
    signed_in = await two.made("AuthService.SignIn", handle=MARK, password=PASSWORD)
    theirs = f"Bearer {signed_in.tokens.access_token}"
    (sign_in,) = (await two.made("AuthService.ListSignIns", theirs)).sign_ins
    token = await two.made("ApiTokenService.CreateApiToken", theirs, name=MARK, scopes=["agents.run"])
    for _ in range(100):
        if jobs := (await two.made("JobService.ListJobs")).jobs:
            break
        await asyncio.sleep(0.05)
    two.ids = {
        "session_id": session.session_id,
        "turn_id": turn,
        "job_id": jobs[0].job_id,
        "provider_id": MARK,
        "user_id": user.user_id,
        "identity_provider_id": MARK,
        "handle": MARK,
        "role_id": role.role_id,
        "sign_in_id": sign_in.sign_in_id,
        "api_token_id": token.api_token.api_token_id,
    }
    with psycopg.connect(two.url, autocommit=True) as administrator:  # through the front it would be asked who it is
        administrator.execute(
            "INSERT INTO identity.identity_provider (tenant_id, identity_provider_id, issuer, client_id)"
            " VALUES (%s, %s, 'https://127.0.0.1:1', 'box')",
            (DEFAULT_TENANT, MARK),
        )
    await two.made("TenantService.CreateTenant", slug="theirs", ownerHandle="owner", ownerPassword=PASSWORD)
    owner = await two.made("AuthService.SignIn", "", handle="owner", password=PASSWORD, tenant="theirs")
    two.other = f"Bearer {owner.tokens.access_token}"


def test_every_public_method_is_looked_at() -> None:
    assert set(EXPECTED) == set(public_methods())


def test_every_id_of_a_request_is_filled(two: Two) -> None:
    for name, method in public_methods().items():
        request = two.request(name)
        for one in method.input_type.fields:
            if one.name.endswith("_id") and one.name not in {"request_id", "permission_id", "from_id"}:
                assert one.json_name in request, (name, one.name)


async def test_the_first_tenant_reads_all_of_it(two: Two) -> None:
    """Else there would be nothing to hide."""
    for name, outcome in EXPECTED.items():
        method = public_methods()[name]
        if outcome is not GONE or method.GetOptions().idempotency_level != 1 or method.server_streaming:
            continue
        answer = await two.call(name, OPERATOR, **two.request(name))
        assert answer.code == "OK", (name, answer.text)
        assert any(value in answer.text for value in (MARK, *two.ids.values())) or "List" in name, name


async def test_the_other_tenant_finds_nothing_and_changes_nothing(two: Two) -> None:
    before = two.kept()
    assert sum(map(len, before.values())) > 10
    hidden = {MARK, *two.ids.values(), str(DEFAULT_TENANT)}
    for name, outcome in EXPECTED.items():
        answer = await two.call(name, two.other, **two.request(name))
        assert answer.code in outcome, (name, answer.code, answer.text)
        # A refusal may repeat what the caller named.
        told = answer.text if answer.code == "OK" else ""
        assert not [value for value in hidden if value in told], (name, told)
    assert two.kept() == before
