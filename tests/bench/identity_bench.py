"""What it costs to know who calls, to sign in, to refresh, and how soon another replica knows of a change."""

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from uuid import uuid4

from orginabox.api.v1 import api_token_service_pb2, user_service_pb2

from services.identity.authenticator import Credentials
from services.identity.passwords import Passwords
from services.identity.sign_in import Origin
from services.identity.sign_in_operations import refresh
from tests.bench.report import Table, median, percentile
from tests.contract.identity.rig import Rig, bearer, running
from tests.postgres import postgres_server

CALLS = 20_000
SLOW_CALLS = 300
CHANGES = 40
HERE = Origin("rest", "127.0.0.1", "bench")


async def run() -> list[Table]:
    """Measure with two replicas on one database."""
    with postgres_server() as server, tempfile.TemporaryDirectory() as folder:
        keyring = str(Path(folder, "keyring"))
        async with running(server.database("identity"), keyring, count=2) as (one, two):
            await one.add("ada", "member")
            return [await _known(one), await _signing(one), await _told(one, two)]


async def _known(rig: Rig) -> Table:
    table = Table(
        "Knowing who calls",
        f"`Authenticator.authenticate` of one replica in this process, {CALLS} calls one after the other (without the "
        f"cache {SLOW_CALLS}: a transaction each), microseconds.",
        ("what comes", "p50 µs", "p99 µs"),
        bounds="Bound: what is remembered costs well below 100 µs at p50.",
    )
    pair = await rig.sign_in("ada")
    request = api_token_service_pb2.CreateApiTokenRequest(name="bench", scopes=["*"])
    token = (await rig.tokens.CreateApiToken(request, metadata=bearer(pair.access_token))).token
    authenticator = rig.room.authenticator
    for name, text in (
        ("an access token", pair.access_token),
        ("an API token", token),
        ("the key of the box", rig.operator[0][1].removeprefix("Bearer ")),
    ):
        credentials = Credentials(f"Bearer {text}", HERE)
        times = await _timed(lambda credentials=credentials: authenticator.authenticate(credentials), CALLS)  # type: ignore[misc]
        table.rows.append((name, *_row(times)))
    credentials = Credentials(f"Bearer {pair.access_token}", HERE)

    async def anew() -> object:
        authenticator._proofs.clear()
        return await authenticator.authenticate(credentials)

    table.rows.append(("an access token, its signature verified anew", *_row(await _timed(anew, CALLS // 10))))
    standings = authenticator._standings
    standings.link(up=False)
    times = await _timed(lambda: authenticator.authenticate(credentials), SLOW_CALLS)
    table.rows.append(("an access token while no news can be heard", *_row(times)))
    standings.link(up=True)
    return table


async def _signing(rig: Rig) -> Table:
    table = Table(
        "Signing in and staying in",
        "The operations in this process on a real PostgreSQL without fsync, one after the other, milliseconds. A "
        "password is hashed with argon2id (64 MiB, 3 passes, 4 lanes), two at a time.",
        ("what", "p50 ms", "p99 ms"),
    )
    desk = rig.room.desk
    token = (await rig.sign_in("ada")).refresh_token

    async def again() -> None:
        nonlocal token
        token = (await refresh(desk, token, uuid4(), HERE)).refresh_token

    table.rows.append(("a refresh", *_row(await _timed(again, SLOW_CALLS), 1e3)))
    passwords = Passwords()
    stored = await passwords.hash("the moon was late")
    times = await _timed(lambda: passwords.check(stored, "the moon was late"), 30)
    table.rows.append(("the check of a password alone", *_row(times, 1e3)))
    return table


async def _told(one: Rig, two: Rig) -> Table:
    table = Table(
        "A change counts in another replica",
        f"From the answer to a change of roles in one replica until another answers by it, {CHANGES} changes, "
        "milliseconds.",
        ("what", "p50 ms", "p99 ms"),
    )
    credentials = Credentials(f"Bearer {(await one.sign_in('ada')).access_token}", HERE)
    times = []
    for number in range(CHANGES):
        given = number % 2 == 0
        await two.room.authenticator.authenticate(credentials)
        if given:
            assign = user_service_pb2.AssignRoleRequest(user_id="ada", role_id="admin")
            await one.users.AssignRole(assign, metadata=one.operator)
        else:
            unassign = user_service_pb2.UnassignRoleRequest(user_id="ada", role_id="admin")
            await one.users.UnassignRole(unassign, metadata=one.operator)
        begin = time.perf_counter()
        while (await two.room.authenticator.authenticate(credentials)).may("admin.manage_users") is not given:  # noqa: ASYNC110 - the moment is measured
            await asyncio.sleep(0)
        times.append(time.perf_counter() - begin)
    table.rows.append(("a role given or taken", *_row(times, 1e3)))
    return table


async def _timed(work: Callable[[], Awaitable[object]], count: int) -> list[float]:
    for _ in range(min(count, 50)):
        await work()
    times = []
    for _ in range(count):
        begin = time.perf_counter()
        await work()
        times.append(time.perf_counter() - begin)
    return times


def _row(times: list[float], unit: float = 1e6) -> tuple[str, str]:
    return f"{median(times) * unit:.1f}", f"{percentile(times, 99) * unit:.1f}"
