"""The verbs of API tokens: what programs sign in with."""

from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from services.identity.api_token import ApiToken, ApiTokenInvalid, expiry, new_secret, prefix_of
from services.identity.granting import refuse_gone
from services.identity.permissions import ALL, FLAGS
from services.identity.role import PermissionEscalation, refuse_lack
from services.identity.role_operations import request_digest
from services.identity.role_store import Request
from services.identity.sign_in import digest_of
from services.identity.store import Store
from services.kit.caller import Caller
from services.kit.ids import new_id


@dataclass(frozen=True)
class NewApiToken:
    """What somebody says of a token to make."""

    name: str
    scopes: frozenset[str]
    expire_time: datetime | None


async def create_api_token(
    store: Store, caller: Caller, wanted: NewApiToken, request_id: UUID | None
) -> tuple[ApiToken, str]:
    """Make a token. Answers it, and its text, which is told only once: a repeat of the request has none.

    Raises:
        PermissionEscalation: It would be for more than the caller may do, or an API token makes it.
        TokenRevoked: The sign-in of the caller was ended meanwhile.
    """
    if unknown := wanted.scopes - FLAGS - {ALL}:
        raise ApiTokenInvalid(f"{min(unknown)} is no permission", field="scopes")
    refuse_lack(min(wanted.scopes - caller.permissions - {ALL}, default=""), "this API token")
    request = Request(request_id, request_digest(caller, [wanted.name, sorted(wanted.scopes), wanted.expire_time]))
    api_token_id = new_id()
    secret = new_secret(api_token_id)
    token = ApiToken(
        api_token_id=api_token_id,
        tenant_id=caller.tenant_id,
        user_id=caller.user_id,
        name=wanted.name,
        scopes=wanted.scopes,
        prefix=prefix_of(secret),
        digest=digest_of(secret),
        expire_time=expiry(wanted.expire_time, datetime.now(UTC)),
    )
    async with store.transaction() as tx:
        await tx.lock_tenant(caller.tenant_id)
        await refuse_gone(tx, caller)
        if caller.sign_in_id and await tx.find_api_token(caller.tenant_id, caller.user_id, caller.sign_in_id):
            # It would outlive its own end, and the end that its user makes of it.
            raise PermissionEscalation("an API token makes no API tokens; sign in: oiab login", permission="")
        if not await tx.add_api_token(token, request):
            known = await tx.find_api_token(caller.tenant_id, caller.user_id, request=request)
            if known is None:
                raise LookupError("the token that was in the way is gone")
            return known, ""
        await tx.record(
            "auth.token_create",
            f"api_token:{api_token_id}",
            name=token.name,
            scopes=sorted(token.scopes),
            expire_time=token.expire_time.isoformat(),
        )
        made = await tx.find_api_token(caller.tenant_id, caller.user_id, api_token_id)
    return made or token, secret


async def list_api_tokens(store: Store, caller: Caller, before: UUID | None, size: int) -> list[ApiToken]:
    """The caller's tokens that hold; one more than `size` when there are more."""
    async with store.transaction() as tx:
        return await tx.api_tokens(caller.tenant_id, caller.user_id, before, size + 1)


async def revoke_api_token(store: Store, caller: Caller, api_token_id: UUID) -> None:
    """End a token of the caller."""
    async with store.transaction() as tx:
        await tx.revoke_api_token(caller.tenant_id, caller.user_id, api_token_id)
        await tx.record("auth.token_revoke", f"api_token:{api_token_id}")
