"""Puts on record what was refused, without letting a flood of refusals fill the disk.

The first refusal of its kind is written at once, in a transaction of its own: the call that is refused changes nothing.
Equal ones within the minute are counted, and the count is written when the minute is over. What differs in every call
is bounded too: beyond `MAX_KINDS` kinds in a minute, the rest is counted as one.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from uuid import UUID

from services.kit import telemetry
from services.kit.errors import ServiceUnavailable
from services.kit.outbox import ANONYMOUS, SYSTEM, Who, record
from services.kit.postgres import Transactions
from services.kit.tenancy import as_system

WINDOW_SECONDS = 60.0
MAX_KINDS = 200
_MANY = "many"


@dataclass(frozen=True)
class Denial:
    """One kind of refusal: who was refused what, and why."""

    who: Who
    action: str
    target: str
    reason: str


@dataclass
class _Seen:
    since: float
    again: int = 0


class DenialRecorder:
    """Writes refusals to the outbox of a service.

    Args:
        transactions: Where transactions come from.
        wanted: Set when there is something for the courier.
        clock: Tells the seconds that have passed.
    """

    def __init__(
        self, transactions: Transactions, wanted: asyncio.Event, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._transactions = transactions
        self._wanted = wanted
        self._clock = clock
        self._seen: dict[Denial, _Seen] = {}

    async def denied(
        self,
        target: str,
        reason: str,
        *,
        action: str = "auth.denied",
        who: Who | None = None,
        tenant_id: UUID | None = None,
    ) -> None:
        """Put a refusal on record. What goes wrong here is logged, and never changes the answer.

        Args:
            target: What was asked for, such as `method:orginabox.api.v1.RoleService/CreateRole`.
            reason: The reason of the refusal, such as `PERMISSION_DENIED`.
            action: Under which action it stands on record.
            who: Who was refused. None means the caller, else somebody who is not known.
            tenant_id: The tenant. None means the caller's.
        """
        somebody = who or Who.current(tenant_id)
        if somebody.actor == SYSTEM:
            somebody = replace(somebody, actor=ANONYMOUS)
        denial = Denial(somebody, action, target, reason)
        if denial not in self._seen and len(self._seen) >= MAX_KINDS:
            denial = Denial(Who(denial.who.tenant_id, ANONYMOUS), action, _MANY, _MANY)
        if seen := self._seen.get(denial):
            seen.again += 1
            return
        self._seen[denial] = _Seen(self._clock())
        await self._write(denial, 1)

    async def run(self) -> None:
        """Write the counts of minutes that are over, for ever."""
        while True:
            await asyncio.sleep(WINDOW_SECONDS / 10)
            await self.flush()

    async def flush(self, *, everything: bool = False) -> None:
        """Write the counts of minutes that are over, or of all at the end of the process."""
        now = self._clock()
        over = {denial: seen for denial, seen in self._seen.items() if everything or now - seen.since >= WINDOW_SECONDS}
        for denial, seen in over.items():
            del self._seen[denial]
            if seen.again:
                await self._write(denial, seen.again)

    async def _write(self, denial: Denial, times: int) -> None:
        payload = {"reason": denial.reason} | ({"times": times} if times > 1 else {})
        try:
            # Whoever was refused has no tenant yet whose rows could be written as theirs.
            with as_system():
                async with self._transactions() as tx:
                    await record(tx, denial.action, denial.target, who=denial.who, payload=payload)
        except ServiceUnavailable as error:
            telemetry.log().error(
                "a refusal is not on record", target=denial.target, reason=denial.reason, cause=str(error)
            )
        else:
            self._wanted.set()
