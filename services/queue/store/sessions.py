"""The streams of workers."""

from collections.abc import Collection
from datetime import timedelta
from uuid import UUID

from services.queue.store.rows import (
    Rows,
)


class SessionRows(Rows):
    """The streams of workers."""

    async def open_session(
        self, session_id: UUID, instance: str, worker_id: str, kinds: Collection[str], duration: timedelta
    ) -> None:
        """Remember the stream of a worker."""
        await self._tx.run(
            "open_session",
            id=session_id,
            instance=instance,
            worker_id=worker_id,
            kinds=sorted(kinds),
            duration=duration,
        )

    async def renew_sessions(self, sessions: Collection[UUID], duration: timedelta) -> set[UUID]:
        """Keep sessions for another while, and return those that are still there."""
        rows = await self._tx.many("renew_sessions", ids=list(sessions), duration=duration)
        return {row["id"] for row in rows}

    async def close_sessions(self, sessions: Collection[UUID]) -> None:
        """Forget sessions."""
        if sessions:
            await self._tx.run("close_sessions", ids=list(sessions))

    async def close_expired_sessions(self, living: Collection[UUID]) -> int:
        """Forget the sessions that nobody renewed and that are not known to live. Returns how many there were."""
        return await self._tx.run("close_expired_sessions", living=list(living))

    async def close_sessions_of(self, instance: str) -> int:
        """Forget the sessions of one Queue process. Returns how many there were."""
        return await self._tx.run("close_sessions_of", instance=instance)
