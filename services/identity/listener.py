"""Hears the news of other replicas on a connection of its own, and tells the cache whether it can be relied on."""

import asyncio

import psycopg

from services.identity.news import News
from services.identity.standing import Standings
from services.kit import telemetry

CHANNEL = "oiab_identity"
BEAT_SECONDS = 2.0
"""How often the connection is asked whether it lives: a peer that is gone without a word is noticed so soon."""
RETRY_SECONDS = 0.5


class Listener:
    """Listens for as long as it runs.

    Args:
        url: The address of the database in libpq's form.
        standings: The cache.
    """

    def __init__(self, url: str, standings: Standings) -> None:
        self._url = url
        self._standings = standings

    async def run(self) -> None:
        """Listen for ever. While the database is away, the cache is not used."""
        while True:
            try:
                async with await self._connect() as connection:
                    await self._listen(connection)
            except (psycopg.Error, TimeoutError) as error:
                telemetry.log().warning("nothing is heard of other replicas", cause=str(error))
            finally:
                self._standings.link(up=False)
            await asyncio.sleep(RETRY_SECONDS)

    async def _listen(self, connection: psycopg.AsyncConnection) -> None:
        await connection.execute(f"LISTEN {CHANNEL}")
        self._standings.link(up=True)
        while True:
            async for notification in connection.notifies(timeout=BEAT_SECONDS):
                self._hear(notification)
            async with asyncio.timeout(BEAT_SECONDS):
                await connection.execute("SELECT 1")  # what is heard meanwhile is told by `notifies`, too

    def _hear(self, notification: psycopg.Notify) -> None:
        try:
            news = News.read(notification.payload)
        except ValueError:
            self._standings.link(up=True)  # whoever says so knows of something that we do not
            return
        self._standings.hear(news)

    async def _connect(self) -> psycopg.AsyncConnection:
        return await psycopg.AsyncConnection.connect(
            self._url, autocommit=True, connect_timeout=5, application_name="oiab-identity"
        )
