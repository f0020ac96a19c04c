"""What Audit does by itself: verify what is new, and remove what is too old."""

import asyncio
from datetime import datetime

from services.audit import operations
from services.audit.record import now
from services.audit.store import Store
from services.audit.verification import Verifier
from services.kit import telemetry
from services.kit.errors import ServiceUnavailable

EXPIRE_SECONDS = 24 * 3600.0


async def verify_for_ever(verifier: Verifier, every: float) -> None:
    """Verify what is new, and say loudly what is wrong."""
    while True:
        await asyncio.sleep(every)
        try:
            report = await verifier.verify(None, lambda _: None)
        except ServiceUnavailable as error:
            telemetry.log().warning("the audit log was not verified", cause=str(error))
            continue
        for damage in report.damages:
            telemetry.log().error(
                "the audit log is damaged: " + damage.told,
                damage=damage.kind.name,
                sequence=damage.sequence,
                tenant_id=str(damage.tenant_id or ""),
            )


async def expire_for_ever(store: Store) -> None:
    """Remove bodies that are too old, once a day."""
    while True:
        try:
            await expire_all(store, now())
        except ServiceUnavailable as error:
            telemetry.log().warning("the audit log kept what is too old", cause=str(error))
        await asyncio.sleep(EXPIRE_SECONDS)


async def expire_all(store: Store, time: datetime) -> int:
    """Remove bodies that are too old at a time, and tell how many."""
    async with store.transaction() as tx:
        heads = await tx.checkpoints.heads()
    return sum([await operations.expire(store, head.tenant_id, time) for head in heads])
