"""A process that rotates the keys of a tenant again and again, until it is killed."""

import asyncio
import sys
from pathlib import Path

from services.kit.keyring import admin
from tests.store.keyring.rig import A, room


async def main(url: str, home: Path) -> None:
    """Rotate for ever, and say when it has begun."""
    admin.BATCH = 3
    async with room(url, home) as here:
        print("rotating", flush=True)
        while True:
            await here.admin.rotate(A)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
