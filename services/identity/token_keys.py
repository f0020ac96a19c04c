"""The keys of tokens: derived from a data key of the installation, which is replaced by itself when it grows old."""

import asyncio
from datetime import UTC, datetime, timedelta

from services.identity.access_token import AccessTokens, SigningKey
from services.identity.browser import Browsers
from services.identity.issuer import Issuer
from services.kit import telemetry
from services.kit.errors import DomainError
from services.kit.keyring.admin import KeyringAdmin
from services.kit.keyring.data_key import INSTALLATION, KeyState
from services.kit.keyring.keyring import Keyring

EVERY_SECONDS = 30.0
"""How long a replica may not know of a new key. For as long nobody signs with it."""
OLD = timedelta(days=30)
KEPT = timedelta(hours=1)
"""How long a retired key verifies: longer than an access token lives."""


class TokenKeys:
    """Keeps the keys of tokens as the keyring has them.

    Args:
        keyring: The keyring of identity.
        admin: What rotates it.
    """

    def __init__(self, keyring: Keyring, admin: KeyringAdmin) -> None:
        self._keyring = keyring
        self.admin = admin

    async def signing(self) -> list[SigningKey]:
        """The keys of access tokens, the newest first."""
        return [SigningKey(key.key) for key in await self._keyring.derive_all(INSTALLATION, "access tokens")]

    async def refreshing(self) -> list[bytes]:
        """The keys from which refresh tokens are derived, the newest first."""
        return [key.key for key in await self._keyring.derive_all(INSTALLATION, "refresh tokens")]

    async def sealing_cookies(self) -> list[bytes]:
        """The keys with which the cookies of browsers are sealed, the newest first."""
        return [key.key for key in await self._keyring.derive_all(INSTALLATION, "browser cookies")]

    async def run(self, access_tokens: AccessTokens, issuer: Issuer, browsers: Browsers | None = None) -> None:
        """Follow the keyring for ever. Where it cannot be asked, the keys stay as they are."""
        while True:
            await asyncio.sleep(EVERY_SECONDS)
            try:
                await self.follow(access_tokens, issuer, browsers)
            except DomainError as error:
                telemetry.log().warning("the keys of tokens stay for now", reason=error.reason)

    async def follow(self, access_tokens: AccessTokens, issuer: Issuer, browsers: Browsers | None = None) -> None:
        """Use the keys as they are now, and replace and destroy what is old."""
        keys = await self._keyring.keys.of(INSTALLATION)
        active = next((key for key in keys if key.state is KeyState.ACTIVE), None)
        if active and active.create_time and datetime.now(UTC) - active.create_time > OLD:
            await self.admin.rotate(INSTALLATION)
        await self.admin.sweep(INSTALLATION)
        self._keyring.look_again()
        access_tokens.use(await self.signing())
        issuer.use(await self.refreshing())
        if browsers:
            browsers.use(await self.sealing_cookies())
