"""A rotation that is killed anywhere has lost nothing, has left no key unused and no change without its record."""

import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from services.kit.keyring.data_key import KeyState
from tests.store.keyring.rig import A, Room, room, secret_of

NAMES = [f"p{number:03}" for number in range(60)]
KILLS = 8


async def test_killed_rotations_lose_nothing(database: Callable[..., str], tmp_path: Path) -> None:
    url, chance = database("runtime"), random.Random(7)
    cut = 0
    async with room(url, tmp_path) as here:
        await here.put_many(A, NAMES)
        await here.apply(A)
        for _ in range(KILLS):
            _kill_a_rotation(url, tmp_path, chance.uniform(0.0, 0.25))
            here.keyring.forget()
            cut += await _check(here)
        done = await here.admin.rotate(A)
        assert done.unreadable == 0
        await here.admin.rotate(A)
        status = await here.admin.status(A)
        assert (len(status.data_keys), status.to_reseal) == (1, 0)
    assert cut, "at least one was cut between two batches"


def _kill_a_rotation(url: str, home: Path, after: float) -> None:
    argv = (sys.executable, "-m", "tests.store.keyring.rotating", url, str(home))
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "rotating\n"
        time.sleep(after)
        process.kill()
        process.wait(10)


async def _check(here: Room) -> bool:
    for query in ("read", "read_applied"):
        assert await here.opened(A, query) == {name: secret_of(name) for name in NAMES}
    status = await here.admin.status(A)
    assert [use.key.state for use in status.data_keys].count(KeyState.ACTIVE) == 1
    assert sum(use.secrets for use in status.data_keys) == 2 * len(NAMES)
    # A key that was made by a rotation, of which there may be some that are gone, has its record.
    assert len(await here.records(A)) >= len(status.data_keys) - 1
    return status.to_reseal > 0
