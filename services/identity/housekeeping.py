"""Forgets what ended long ago: failures, devices, refresh tokens, sign-ins."""

import asyncio

from services.identity.store import Store
from services.kit import telemetry
from services.kit.errors import ServiceUnavailable
from services.kit.tenancy import as_system

EVERY_SECONDS = 600.0


class Housekeeping:
    """Looks every ten minutes.

    Args:
        store: Where all of it is.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    async def run(self) -> None:
        """Forget for ever."""
        while True:
            await asyncio.sleep(EVERY_SECONDS)
            try:
                await self.forget()
            except ServiceUnavailable as error:
                telemetry.log().warning("what is old stays for now", cause=str(error))

    async def forget(self) -> int:
        """Forget what is old now, and say how much it was."""
        with as_system():
            async with self._store.transaction() as tx:
                return await tx.forget_old() + await tx.forget_web_sign_ins()
