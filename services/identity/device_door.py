"""What stands before the codes of devices: nobody tries many until one is somebody's."""

from datetime import UTC, datetime, timedelta

from services.identity import device_operations
from services.identity.attempts import Brake, refuse_early
from services.identity.device import Device
from services.identity.store import Store
from services.kit.caller import Caller
from services.kit.tenancy import as_tenant

CODES = Brake(5, timedelta(minutes=15))


async def look(store: Store, caller: Caller, typed: str) -> Device | None:
    """The device that waits with a code that somebody has typed. None: there is none, which counts against them.

    Raises:
        TooManyAttempts: They have typed too many that were nobody's.
    """
    counter = f"device:{caller.user_id}"
    with as_tenant(caller.tenant_id):
        async with store.transaction() as tx:
            failures, wait_until = await tx.count_attempt(caller.tenant_id, counter)
            refuse_early(wait_until, datetime.now(UTC))
            if wait := CODES.wait(failures):
                await tx.delay_attempts(caller.tenant_id, counter, datetime.now(UTC) + wait)
    found = await device_operations.find(store, typed)
    if found is not None:
        with as_tenant(caller.tenant_id):
            async with store.transaction() as tx:
                await tx.take_back_attempt(caller.tenant_id, counter)
    return found
