"""Where the transactions of identity come from."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg

from services.identity.news import News
from services.identity.scim_store import ScimStore
from services.identity.user import UserInvalid
from services.kit import outbox
from services.kit.keyring import data_key
from services.kit.keyring.secret_table import SecretTable
from services.kit.outbox import Who, record
from services.kit.postgres import Database, Transaction
from services.kit.queries import load_queries

SCHEMA = "identity"
QUERIES = (
    load_queries(Path(__file__).with_name("queries.sql"))
    | load_queries(Path(__file__).with_name("sign_in_queries.sql"))
    | load_queries(Path(__file__).with_name("keyring_queries.sql"))
    | load_queries(Path(__file__).with_name("door_queries.sql"))
    | outbox.QUERIES
    | data_key.QUERIES
)
SECRETS = (
    SecretTable(
        stale="stale_provider_secrets",
        save="reseal_provider_secret",
        count="count_provider_secrets",
        originals="original_provider_secrets",
    ),
)
"""Where sealed secrets are. Each is sealed for the record `identity_provider:<tenant>:<identity provider>`."""


class Store:
    """Where transactions come from.

    Attributes:
        recorded: Set when there is something for the courier of audit records.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._hear: list[Callable[[News], None]] = []
        self.recorded = asyncio.Event()

    def on_news(self, hear: Callable[[News], None]) -> None:
        """Let somebody of this process hear of every change once it is committed, before its caller is answered."""
        self._hear.append(hear)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator["StoreTransaction"]:
        """Open a transaction: it commits when the block ends."""
        try:
            async with self._database.transaction() as tx:
                found = StoreTransaction(tx)
                yield found
        except psycopg.DataError as error:
            if error.sqlstate is None:  # it did not come as far as the database, which takes any text but this
                raise UserInvalid("a text must not have the sign NUL in it", field="") from None
            raise
        for news in found.news:
            for hear in self._hear:
                hear(news)
        if found.recorded:
            self.recorded.set()


class StoreTransaction(ScimStore):
    """One transaction on people, their sign-ins, and where they sign in."""

    def __init__(self, tx: Transaction) -> None:
        super().__init__(tx)
        self.recorded = False

    async def record(self, action: str, target: str = "", *, who: Who | None = None, **payload: object) -> None:
        """Put on record what is done in this transaction.

        Args:
            action: What is done, such as `auth.login`.
            target: What it is done to: an id of ours.
            who: Who does it. None means the caller.
            payload: What else is known. It can be erased.
        """
        self.recorded = True
        await record(self._tx, action, target, who=who, payload=payload)
