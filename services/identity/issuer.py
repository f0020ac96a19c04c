"""Gives sign-ins their tokens: the first pair, and each next one."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

from services.identity.access_token import LIFE, AccessTokens, Claims
from services.identity.sign_in import (
    REFRESH_LIFE,
    Origin,
    RefreshToken,
    SignIn,
    TokenPair,
    digest_of,
    new_refresh_token,
    next_refresh_token,
)
from services.identity.store import StoreTransaction
from services.identity.user import User
from services.kit.ids import new_id


class Issuer:
    """Makes tokens.

    Args:
        access_tokens: Signs access tokens.
        refresh_keys: The keys from which refresh tokens are derived, the newest first.
    """

    def __init__(self, access_tokens: AccessTokens, refresh_keys: Sequence[bytes]) -> None:
        self._access_tokens = access_tokens
        self._refresh_keys = tuple(refresh_keys)

    def use(self, refresh_keys: Sequence[bytes]) -> None:
        """Use the keys as they are now, the newest first."""
        self._refresh_keys = tuple(refresh_keys)

    async def begin(
        self, tx: StoreTransaction, user: User, origin: Origin, device: str, identity_provider: str = ""
    ) -> TokenPair:
        """Begin a sign-in of a user who has proved that they are it.

        Args:
            tx: The transaction that keeps it.
            user: The user with the names of their roles, as `mark_signed_in` answers them.
            origin: From where they sign in.
            device: What signs in, in its own words.
            identity_provider: Who vouches for them. Empty for a password.
        """
        now = datetime.now(UTC)
        sign_in = SignIn(
            sign_in_id=new_id(),
            tenant_id=user.tenant_id,
            user_id=user.user_id,
            device=device or origin.user_agent or origin.channel,
            ip_address=origin.ip_address,
            identity_provider=identity_provider,
            create_time=now,
            refresh_time=now,
            expire_time=now + REFRESH_LIFE,
        )
        token = new_refresh_token()
        await tx.add_sign_in(sign_in, origin)
        await tx.add_refresh_token(digest_of(token), user.tenant_id, sign_in.sign_in_id, sign_in.expire_time)
        return self._pair(user, sign_in.sign_in_id, token, now)

    async def go_on(
        self, tx: StoreTransaction, user: User, used: RefreshToken, token: str, request_id: UUID | None
    ) -> TokenPair:
        """Take a refresh token, and give the next pair in its place."""
        now = datetime.now(UTC)
        following = next_refresh_token(self._refresh_keys[0], token, request_id)
        await tx.use_refresh_token(digest_of(token), digest_of(following), request_id, now)
        await tx.add_refresh_token(digest_of(following), used.tenant_id, used.sign_in_id, now + REFRESH_LIFE)
        await tx.refresh_sign_in(used, now, now + REFRESH_LIFE)
        return self._pair(user, used.sign_in_id, following, now)

    def again(
        self, user: User, used: RefreshToken, token: str, request_id: UUID | None, successor: bytes | None
    ) -> TokenPair | None:
        """The answer to a refresh whose first answer was lost, or None when it cannot be given again."""
        for key in self._refresh_keys:
            following = next_refresh_token(key, token, request_id)
            if digest_of(following) == successor:
                pair = self._pair(user, used.sign_in_id, following, datetime.now(UTC))
                return replace(pair, refresh_expire_time=(used.use_time or datetime.now(UTC)) + REFRESH_LIFE)
        return None

    def claims_of(self, pair: TokenPair) -> Claims:
        """Whose a pair is, and of which sign-in."""
        return self._access_tokens.verify(pair.access_token)

    def _pair(self, user: User, sign_in_id: UUID, refresh_token: str, now: datetime) -> TokenPair:
        access = self._access_tokens.sign(user.user_id, user.tenant_id, sign_in_id, user.roles, now)
        return TokenPair(access, now + LIFE, refresh_token, now + REFRESH_LIFE)
