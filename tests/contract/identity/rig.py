"""Identity in this process on a real database, called as clients call it: with tokens, over gRPC."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, cast

import grpc
import pytest
from argon2 import PasswordHasher
from orginabox.api.v1 import (
    api_token_service_pb2_grpc,
    auth_service_pb2,
    auth_service_pb2_grpc,
    role_service_pb2_grpc,
    tenant_service_pb2_grpc,
    user_service_pb2,
    user_service_pb2_grpc,
)
from orginabox.audit.v1 import audit_service_pb2 as audit_pb
from orginabox.audit.v1 import audit_service_pb2_grpc

from services.identity.passwords import Passwords
from services.identity.room import SERVICES, Room, opened
from services.identity.settings import IdentitySettings
from services.kit.gate import Gate
from services.kit.status import reason_of
from tests.contract.rig import served
from tests.postgres import as_service

KEY = "the-key-of-the-box"
QUICK = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
"""As passwords are kept, but for the work: tests sign in often."""
PASSWORD = "the moon was late"
HERE, ELSEWHERE = "127.0.0.1", "203.0.113.7"
Metadata = tuple[tuple[str, str], ...]


class Audits:
    """Stands for Audit, and keeps what is brought."""

    def __init__(self) -> None:
        self.records: list[Any] = []

    async def AppendRecords(self, request: audit_pb.AppendRecordsRequest) -> audit_pb.AppendRecordsResponse:
        self.records += request.records
        return audit_pb.AppendRecordsResponse()

    async def until(self, action: str, **payload: object) -> Any:
        """The newest record of an action, as soon as it is there."""
        for _ in range(200):
            for record in reversed(self.records):
                if record.action == action and all(record.payload[name] == value for name, value in payload.items()):
                    return record
            await asyncio.sleep(0.02)
        raise AssertionError(f"{action} is not on record: {[record.action for record in self.records]}")


@dataclass
class Rig:
    """A running room, and the stubs to call it with."""

    room: Room
    audits: Audits
    channel: grpc.aio.Channel

    def __post_init__(self) -> None:
        self.auth = auth_service_pb2_grpc.AuthServiceStub(self.channel)
        self.users = user_service_pb2_grpc.UserServiceStub(self.channel)
        self.roles = role_service_pb2_grpc.RoleServiceStub(self.channel)
        self.tokens = api_token_service_pb2_grpc.ApiTokenServiceStub(self.channel)
        self.tenants = tenant_service_pb2_grpc.TenantServiceStub(self.channel)

    operator: Metadata = (("authorization", f"Bearer {KEY}"), ("x-forwarded-for", HERE))

    async def add(self, handle: str, *roles: str, by: Metadata | None = None, password: str = PASSWORD) -> str:
        """Add a user, and answer their id."""
        request = user_service_pb2.CreateUserRequest(handle=handle, password=password, roles=roles)
        return str((await self.users.CreateUser(request, metadata=by or self.operator)).user.user_id)

    async def sign_in(
        self, handle: str, password: str = PASSWORD, *, tenant: str = "", address: str = HERE
    ) -> auth_service_pb2.TokenPair:
        """Sign a user in."""
        request = auth_service_pb2.SignInRequest(handle=handle, password=password, tenant=tenant, device="test")
        return (await self.auth.SignIn(request, metadata=(("x-forwarded-for", address),))).tokens

    async def become(self, handle: str, *roles: str, by: Metadata | None = None) -> Metadata:
        """Add a user and sign them in."""
        await self.add(handle, *roles, by=by)
        return bearer((await self.sign_in(handle)).access_token)

    async def may(self, who: Metadata) -> set[str]:
        """Which permissions somebody has, by the names."""
        found = (await self.auth.GetMe(auth_service_pb2.GetMeRequest(), metadata=who)).permissions
        return {
            f"{group.name}.{flag.name}"
            for group, message in found.ListFields()
            for flag, value in message.ListFields()
            if value is True
        }


def bearer(token: str, address: str = HERE) -> Metadata:
    """What somebody sends along who has a token."""
    return (("authorization", f"Bearer {token}"), ("x-forwarded-for", address))


@contextmanager
def refused(reason: str, **metadata: str) -> Iterator[None]:
    """Expect a refusal."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        yield
    found = reason_of(raised.value)
    assert found == reason, f"{found}: {raised.value.details()}"


@asynccontextmanager
async def running(database_url: str, keyring: str, count: int = 1, **settings: Any) -> AsyncIterator[list[Rig]]:
    """Replicas of identity on one database."""
    urls = as_service(database_url, "identity")
    told = IdentitySettings(
        identity_database_url=urls.tenant, identity_database_system_url=urls.system, keyring=keyring, **settings
    )
    async with AsyncExitStack() as stack:
        rigs = []
        for _ in range(count):
            audits = Audits()
            stub = cast("audit_service_pb2_grpc.AuditServiceStub", audits)
            room = await stack.enter_async_context(opened(told, KEY, stub, Passwords(QUICK)))
            channel = await stack.enter_async_context(served(SERVICES, room.register, Gate(room.identify)))
            rigs.append(Rig(room, audits, channel))
        for rig in rigs:
            await until(lambda rig=rig: linked(rig))  # type: ignore[misc]
        yield rigs


def linked(rig: Rig) -> bool:
    """Whether a replica hears the news of the others."""
    return rig.room.authenticator._standings.linked


async def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds that happens soon."""
    for _ in range(250):
        if holds():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it did not happen within 5 seconds")
