"""Finds out who calls: by an access token, an API token, or the key of the box."""

import asyncio
import hashlib
import hmac
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import ip_address
from uuid import UUID

from services.identity.access_token import AccessTokens
from services.identity.api_token import PREFIX as API_TOKEN
from services.identity.api_token import flags_of, id_in
from services.identity.browser import Browsers, Sender
from services.identity.permissions import FLAGS
from services.identity.sign_in import Origin, TokenExpired, TokenInvalid, TokenRevoked, digest_of
from services.identity.standing import Standing, Standings
from services.identity.store import Store
from services.kit.caller import Caller
from services.kit.errors import DomainError, Kind, Unauthenticated
from services.kit.ids import DEFAULT_TENANT, OPERATOR
from services.kit.tenancy import as_system, as_tenant

MOST_PROOFS = 10_000
TOUCH_EVERY = 60.0
"""How exact the last use of an API token is kept, in seconds."""
_BEARER = "Bearer "
_DOTS = 2


class OperatorKeyRemote(DomainError):
    """The key of the box opens it on this machine only."""

    kind = Kind.PERMISSION_DENIED
    reason = "OPERATOR_KEY_REMOTE"


@dataclass(frozen=True)
class Credentials:
    """What somebody brings to prove who they are.

    Attributes:
        authorization: The header of that name.
        origin: From where they call.
        cookies: The `Cookie` header of a browser. It counts when there is no other credential.
        sender: What that browser says of the page that calls.
        unsafe: Whether the call may change something, so that no other site may make it by a browser's hand.
    """

    authorization: str = field(repr=False)
    origin: Origin
    cookies: str = field(default="", repr=False)
    sender: Sender = field(default_factory=Sender)
    unsafe: bool = True


@dataclass(frozen=True)
class _Proof:
    """An access token that was verified: what it says does not change any more, only how its sign-in stands."""

    tenant_id: UUID
    user_id: UUID
    sign_in_id: UUID
    expires: float


class Authenticator:
    """Knows users by what they bring.

    Args:
        store: Where sign-ins and tokens are.
        access_tokens: Verifies access tokens.
        standings: Remembers how people stand.
        browsers: Knows browsers by their cookies.
        operator_key: The key of the box. Empty: there is none.
        remote_key: Whether the key of the box opens it from other machines, too.
        clock: Tells the time in seconds since 1970.
    """

    def __init__(
        self,
        store: Store,
        access_tokens: AccessTokens,
        standings: Standings,
        browsers: Browsers,
        operator_key: str = "",
        *,
        remote_key: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._access_tokens = access_tokens
        self._standings = standings
        self._browsers = browsers
        self._operator = f"{_BEARER}{operator_key}".encode() if operator_key else b""
        self._remote_key = remote_key
        self._clock = clock
        self._proofs: dict[bytes, _Proof] = {}
        self._touched: dict[UUID, float] = {}
        self._to_touch: dict[UUID, datetime] = {}
        store.on_news(standings.hear)

    async def authenticate(self, credentials: Credentials) -> Caller:
        """Who comes with these, and what they may do now.

        Raises:
            Unauthenticated: They bring nothing.
            TokenInvalid: The token is none of this box.
            TokenExpired: It has ended.
            TokenRevoked: It was ended.
            UserSuspended: Its user or their tenant may not use the box.
            OperatorKeyRemote: It is the key of the box, and comes from another machine.
            CsrfRefused: It is a browser's cookie, and the call may be that of another site.
        """
        given = credentials.authorization
        if not given and (cookie := self._browsers.session_in(credentials.cookies)):
            standing = await self._of_browser(cookie, credentials)
            standing.refuse()
            return _caller(standing, credentials.origin)
        if not given:
            raise Unauthenticated(
                "sign in: send a token as `Authorization: Bearer <token>`; `oiab login` gets one, "
                "`oiab status` says where the key of the box is"
            )
        if self._operator and hmac.compare_digest(given.encode(), self._operator):
            return self._as_operator(credentials.origin)
        token = given.removeprefix(_BEARER)
        if token == given:
            raise Unauthenticated("the authorization has to look like `Bearer <token>`")
        if token.startswith(API_TOKEN):
            standing = await self._of_api_token(token)
        elif token.count(".") == _DOTS:
            standing = await self._of_access_token(token)
        else:
            raise Unauthenticated(
                "this is not the key of this box, nor a token of it; `oiab status` says where the key is"
            )
        standing.refuse()
        return _caller(standing, credentials.origin)

    async def run(self) -> None:
        """Keep when API tokens were last used, for ever."""
        while True:
            await asyncio.sleep(TOUCH_EVERY / 10)
            await self.flush()

    async def flush(self) -> None:
        """Write when API tokens were last used."""
        used, self._to_touch = self._to_touch, {}
        if used:
            with as_system():
                async with self._store.transaction() as tx:
                    await tx.touch_api_tokens(used)

    def _as_operator(self, origin: Origin) -> Caller:
        if not self._remote_key and not _is_here(origin.ip_address):
            raise OperatorKeyRemote(
                "the key of the box opens it on its own machine only; "
                "sign in as a user, or set OIAB_API_KEY_REMOTE=true"
            )
        return Caller(
            tenant_id=DEFAULT_TENANT,
            user_id=OPERATOR,
            permissions=FLAGS,
            channel=origin.channel,
            ip_address=origin.ip_address,
            user_agent=origin.user_agent,
        )

    async def _of_access_token(self, token: str) -> Standing:
        proof = self._proof(token)
        return await self._of_sign_in(proof.tenant_id, proof.user_id, proof.sign_in_id)

    async def _of_browser(self, cookie: str, credentials: Credentials) -> Standing:
        session = self._browsers.open(cookie)
        if credentials.unsafe:
            self._browsers.refuse_forged(credentials.sender, self._browsers.csrf_proofs(session.sign_in_id))
        return await self._of_sign_in(session.tenant_id, session.user_id, session.sign_in_id)

    async def _of_sign_in(self, tenant_id: UUID, user_id: UUID, sign_in_id: UUID) -> Standing:
        standing = self._standings.get(sign_in_id) or await self._read_sign_in(tenant_id, sign_in_id)
        if standing.user_id != user_id or standing.tenant_id != tenant_id:
            raise TokenInvalid("this token is none of this box; sign in again: oiab login")
        return standing

    async def _read_sign_in(self, tenant_id: UUID, sign_in_id: UUID) -> Standing:
        heard = self._standings.heard
        with as_tenant(tenant_id):
            async with self._store.transaction() as tx:
                found = await tx.sign_in_standing(tenant_id, sign_in_id)
        if found is None:
            raise TokenRevoked("this sign-in was ended; sign in again: oiab login")
        self._standings.keep(found, heard)
        return found

    def _proof(self, token: str) -> _Proof:
        digest = hashlib.sha256(token.encode()).digest()
        proof = self._proofs.get(digest)
        if proof is None:
            claims = self._access_tokens.verify(token)
            proof = _Proof(claims.tenant_id, claims.user_id, claims.sign_in_id, claims.expire_time.timestamp())
            if len(self._proofs) >= MOST_PROOFS:
                del self._proofs[next(iter(self._proofs))]
            self._proofs[digest] = proof
        elif proof.expires <= self._clock():
            del self._proofs[digest]
            raise TokenExpired("this access token has ended; refresh it, or sign in again: oiab login")
        return proof

    async def _of_api_token(self, token: str) -> Standing:
        if (api_token_id := id_in(token)) is None:
            raise TokenInvalid("this is no API token of this box")
        standing = self._standings.get(api_token_id)
        if standing is None:
            heard = self._standings.heard
            standing = await self._read_api_token(api_token_id)
            self._standings.keep(standing, heard)
        if not hmac.compare_digest(standing.digest, digest_of(token)):
            raise TokenInvalid("this is no API token of this box")
        if standing.expires <= self._clock():
            raise TokenExpired("this API token has ended; make another: oiab token create")
        self._touch(api_token_id)
        return standing

    async def _read_api_token(self, api_token_id: UUID) -> Standing:
        with as_system():  # it says which token it is, and not of which tenant
            async with self._store.transaction() as tx:
                found = await tx.api_token_standing(api_token_id)
        if found is None:
            raise TokenInvalid("this is no API token of this box")
        standing, token = found
        return Standing(
            standing.tenant_id,
            standing.user_id,
            api_token_id,
            standing.permissions,
            standing.holds,
            standing.user_active,
            standing.tenant_active,
            token.digest,
            flags_of(token.scopes),
            token.expire_time.timestamp(),
        )

    def _touch(self, api_token_id: UUID) -> None:
        now = self._clock()
        if now - self._touched.get(api_token_id, 0.0) >= TOUCH_EVERY:
            if len(self._touched) >= MOST_PROOFS:
                self._touched.clear()
            self._touched[api_token_id] = now
            self._to_touch[api_token_id] = datetime.fromtimestamp(now, UTC)


def _caller(standing: Standing, origin: Origin) -> Caller:
    return Caller(
        tenant_id=standing.tenant_id,
        user_id=standing.user_id,
        permissions=standing.flags,
        sign_in_id=standing.grant_id,
        channel=origin.channel,
        ip_address=origin.ip_address,
        user_agent=origin.user_agent,
    )


def _is_here(address: str) -> bool:
    """Whether a call comes from this machine. A unix socket has no address."""
    if not address:
        return True
    try:
        found = ip_address(address)
    except ValueError:
        return False
    return found.is_loopback
