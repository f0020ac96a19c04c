"""Sign-ins, API tokens, failures and devices in PostgreSQL: one method per named query."""

from collections.abc import Mapping
from datetime import datetime
from uuid import UUID

from services.identity.api_token import ApiToken, ApiTokenNotFound
from services.identity.attempts import FORGET_AFTER
from services.identity.device import Device, DeviceState
from services.identity.people_store import PeopleStore
from services.identity.role_store import NO_REQUEST, Request, refuse_reuse
from services.identity.sign_in import Origin, RefreshToken, SignIn
from services.identity.standing import Standing
from services.identity.user import User
from services.kit.postgres import Row


class SignInStore(PeopleStore):
    """What a transaction can do about sign-ins, besides all that it can do about people."""

    async def sign_in_standing(self, tenant_id: UUID, sign_in_id: UUID) -> Standing | None:
        """How a sign-in and its user stand."""
        row = await self._tx.one("sign_in_standing", tenant_id=tenant_id, sign_in_id=sign_in_id)
        return Standing.read(sign_in_id, row) if row else None

    async def api_token_standing(self, api_token_id: UUID) -> tuple[Standing, ApiToken] | None:
        """How an API token and its user stand."""
        row = await self._tx.one("api_token_standing", api_token_id=api_token_id)
        if row is None:
            return None
        token = _api_token(
            {name: value for name, value in row.items() if name not in Standing.COLUMNS or name in _SHARED}
        )
        return Standing.read(api_token_id, row), token

    async def user_standing(self, tenant_id: UUID, user_id: UUID) -> Standing | None:
        """How a user stands, whatever they would come with."""
        row = await self._tx.one("user_standing", tenant_id=tenant_id, user_id=user_id)
        return Standing.read(user_id, row) if row else None

    async def add_sign_in(self, sign_in: SignIn, origin: Origin) -> None:
        """Begin a sign-in."""
        await self._tx.run("add_sign_in", **vars(sign_in) | {"now": sign_in.create_time}, user_agent=origin.user_agent)

    async def mark_signed_in(self, user: User, now: datetime) -> User:
        """Remember that a user signs in, hold them until the transaction ends, and read them as they are now.

        A new password ends the sign-ins that it finds: whoever comes with the old one is there before it, or sees it.
        """
        await self._tx.run("mark_signed_in", tenant_id=user.tenant_id, user_id=user.user_id, now=now)
        return await self.user(user.tenant_id, str(user.user_id))

    async def sign_ins(self, tenant_id: UUID, user_id: UUID, before: UUID | None, size: int) -> list[SignIn]:
        """The sign-ins of a user that hold, newest first."""
        rows = await self._tx.many("page_sign_ins", tenant_id=tenant_id, user_id=user_id, before=before, size=size)
        return [SignIn(**row) for row in rows]

    async def revoke_sign_in(self, tenant_id: UUID, user_id: UUID, sign_in_id: UUID, reason: str) -> bool:
        """End a sign-in of a user, and say whether it held."""
        ended = await self._tx.run(
            "revoke_sign_in", tenant_id=tenant_id, user_id=user_id, sign_in_id=sign_in_id, reason=reason
        )
        if ended:
            await self.tell(tenant_id, user_id)
        return bool(ended)

    async def revoke_sign_ins(self, tenant_id: UUID, user_id: UUID, reason: str, but: UUID | None = None) -> int:
        """End every sign-in of a user but one, also what is approved and not fetched yet, and say how many held."""
        await self._tx.run("deny_approved_devices", tenant_id=tenant_id, user_id=user_id)
        ended = await self._tx.run("revoke_sign_ins", tenant_id=tenant_id, user_id=user_id, reason=reason, but=but)
        if ended:
            await self.tell(tenant_id, user_id)
        return ended

    async def known_address(self, user: User, ip_address: str) -> bool:
        """Whether a user has signed in from an address before."""
        row = await self._tx.one("known_address", tenant_id=user.tenant_id, user_id=user.user_id, ip_address=ip_address)
        return bool(row and row["known"])

    async def add_refresh_token(self, digest: bytes, tenant_id: UUID, sign_in_id: UUID, expire: datetime) -> None:
        """Keep a refresh token."""
        await self._tx.run(
            "add_refresh_token", digest=digest, tenant_id=tenant_id, sign_in_id=sign_in_id, expire_time=expire
        )

    async def lock_refresh_token(self, digest: bytes) -> tuple[RefreshToken, bytes | None] | None:
        """A refresh token with its successor's digest, held until the transaction ends."""
        row = await self._tx.one("lock_refresh_token", digest=digest)
        if row is None:
            return None
        successor = row.pop("successor")
        return RefreshToken(**row), bytes(successor) if successor is not None else None

    async def use_refresh_token(self, digest: bytes, successor: bytes, request_id: UUID | None, now: datetime) -> None:
        """Mark a refresh token as used."""
        await self._tx.run("use_refresh_token", digest=digest, successor=successor, request_id=request_id, now=now)

    async def refresh_sign_in(self, token: RefreshToken, now: datetime, expire: datetime) -> None:
        """Let a sign-in go on."""
        await self._tx.run(
            "refresh_sign_in", tenant_id=token.tenant_id, sign_in_id=token.sign_in_id, now=now, expire_time=expire
        )

    async def add_api_token(self, token: ApiToken, request: Request = NO_REQUEST) -> bool:
        """Keep an API token, unless the same request made one."""
        request_id, digest = request
        kept = await self._tx.run(
            "add_api_token",
            api_token_id=token.api_token_id,
            tenant_id=token.tenant_id,
            user_id=token.user_id,
            token_name=token.name,
            scopes=sorted(token.scopes),
            prefix=token.prefix,
            digest=token.digest,
            expire_time=token.expire_time,
            request_id=request_id,
            request_digest=digest,
        )
        return bool(kept)

    async def find_api_token(
        self, tenant_id: UUID, user_id: UUID, api_token_id: UUID | None = None, *, request: Request = NO_REQUEST
    ) -> ApiToken | None:
        """An API token of a user, by its id or the request that made it.

        Raises:
            RequestIdReused: The request that made it had other content.
        """
        row = await self._tx.one(
            "find_api_token",
            tenant_id=tenant_id,
            user_id=user_id,
            api_token_id=api_token_id,
            request_id=request[0],
        )
        if row is None:
            return None
        refuse_reuse(row.pop("request_digest"), request)
        return _api_token(row)

    async def api_tokens(self, tenant_id: UUID, user_id: UUID, before: UUID | None, size: int) -> list[ApiToken]:
        """The API tokens of a user that hold, newest first."""
        rows = await self._tx.many("page_api_tokens", tenant_id=tenant_id, user_id=user_id, before=before, size=size)
        return [_api_token(row) for row in rows]

    async def revoke_api_token(self, tenant_id: UUID, user_id: UUID, api_token_id: UUID) -> None:
        """End an API token.

        Raises:
            ApiTokenNotFound: The user has none such that holds.
        """
        if not await self._tx.run("revoke_api_token", tenant_id=tenant_id, user_id=user_id, api_token_id=api_token_id):
            raise ApiTokenNotFound("you have no API token with this id that holds")
        await self.tell(tenant_id, user_id)

    async def revoke_api_tokens(self, tenant_id: UUID, user_id: UUID) -> int:
        """End every API token of a user, and say how many held."""
        ended = await self._tx.run("revoke_api_tokens", tenant_id=tenant_id, user_id=user_id)
        if ended:
            await self.tell(tenant_id, user_id)
        return ended

    async def touch_api_tokens(self, used: Mapping[UUID, datetime]) -> None:
        """Remember when API tokens were last used."""
        await self._tx.run("touch_api_tokens", ids=list(used), times=list(used.values()))

    async def count_attempt(self, tenant_id: UUID, subject: str) -> tuple[int, datetime]:
        """Count an attempt, and say how many there were and until when the next had to wait."""
        row = await self._tx.one("count_attempt", tenant_id=tenant_id, subject=subject, forget_after=FORGET_AFTER)
        assert row is not None  # noqa: S101 - it returns the row that it writes
        return int(row["failures"]), row["wait_until"]

    async def delay_attempts(self, tenant_id: UUID, subject: str, until: datetime) -> None:
        """Let the next attempt wait."""
        await self._tx.run("delay_attempts", tenant_id=tenant_id, subject=subject, wait_until=until)

    async def forget_attempts(self, tenant_id: UUID, subject: str) -> None:
        """Forget the failures of a counter."""
        await self._tx.run("forget_attempts", tenant_id=tenant_id, subject=subject)

    async def take_back_attempt(self, tenant_id: UUID, subject: str) -> None:
        """An attempt was none that failed."""
        await self._tx.run("take_back_attempt", tenant_id=tenant_id, subject=subject)

    async def add_device(self, device: Device, digest: bytes) -> bool:
        """A device asks to be signed in. False: the code of its user is taken."""
        params = {
            "tenant_id": device.tenant_id,
            "user_code": device.user_code,
            "device": device.device,
            "ip_address": device.origin.ip_address,
            "user_agent": device.origin.user_agent,
            "expire_time": device.expire_time,
            "poll_seconds": device.poll_seconds,
        }
        return bool(await self._tx.run("add_device_sign_in", device_digest=digest, **params))

    async def lock_device(self, digest: bytes) -> Device | None:
        """The request of a device by its code, held until the transaction ends."""
        row = await self._tx.one("lock_device_sign_in", device_digest=digest)
        return _device(row) if row else None

    async def lock_device_by_user_code(self, user_code: str) -> Device | None:
        """The request of a device by the code that its user types, held until the transaction ends."""
        row = await self._tx.one("lock_device_by_user_code", user_code=user_code)
        return _device(row) if row else None

    async def save_device(self, device: Device) -> None:
        """Change how the request of a device stands."""
        await self._tx.run(
            "save_device_sign_in",
            device_digest=device.digest,
            tenant_id=device.tenant_id,
            state=device.state.value,
            user_id=device.user_id,
            identity_provider=device.identity_provider,
            poll_time=device.poll_time,
            poll_seconds=device.poll_seconds,
        )

    async def provider_choices(self, tenant_id: UUID) -> list[tuple[str, str]]:
        """The identity providers of a tenant: id and name to show."""
        rows = await self._tx.many("list_provider_choices", tenant_id=tenant_id)
        return [(row["identity_provider_id"], row["display_name"] or row["identity_provider_id"]) for row in rows]

    async def forget_old(self) -> int:
        """Forget what ended long ago, and say how much."""
        forgotten = await self._tx.run("forget_attempts_of_yesterday", forget_after=FORGET_AFTER)
        for name in ("forget_devices", "forget_refresh_tokens", "forget_sign_ins"):
            forgotten += await self._tx.run(name)
        return forgotten


_SHARED = frozenset({"tenant_id", "user_id"})


def _api_token(row: Row) -> ApiToken:
    return ApiToken(**row | {"scopes": frozenset(row["scopes"]), "digest": bytes(row["digest"])})


def _device(row: Row) -> Device:
    return Device(
        digest=bytes(row["device_digest"]),
        tenant_id=row["tenant_id"],
        user_code=row["user_code"],
        device=row["device"],
        origin=Origin("", row["ip_address"], row["user_agent"]),
        expire_time=row["expire_time"],
        poll_seconds=row["poll_seconds"],
        state=DeviceState(row["state"]),
        user_id=row["user_id"],
        identity_provider=row["identity_provider"],
        create_time=row["create_time"],
        poll_time=row["poll_time"],
    )
