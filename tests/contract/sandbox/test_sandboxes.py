"""The life of sandboxes: claimed once, killed, stopped, and given new bundles."""

import asyncio
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import grpc
import psutil
import pytest
from orginabox.errors.v1 import error_reason_pb2 as reasons
from orginabox.sandbox.v1 import sandbox_pb2
from orginabox.sandbox.v1 import sandbox_service_pb2 as pb

from services.kit.ids import DEFAULT_TENANT, new_id
from services.kit.status import reason_of
from services.kit.tenancy import as_tenant
from services.sandbox.bubblewrap import Bubblewrap
from services.sandbox.sandbox import SandboxIsolationUnavailable
from tests.contract.sandbox.rig import Event, Rig, text_of, write_bundle
from tests.model_server import scenario

TENANT = str(DEFAULT_TENANT)


def agent_process(pid: int) -> psutil.Process:
    """The agent among the processes of a sandbox."""
    return next(child for child in psutil.Process(pid).children(recursive=True) if child.name() == "opencode")


async def test_claims_at_the_same_time_start_one(rig: Rig) -> None:
    user, before = new_id(), len(rig.tokens)
    claims = await asyncio.gather(*(rig.claim(user) for _ in range(3)))
    assert len({claim.sandbox.sandbox_id for claim in claims}) == 1
    assert len(rig.tokens) == before + 1
    assert claims[0].sandbox.state == sandbox_pb2.SANDBOX_STATE_RUNNING
    began = time.perf_counter()
    assert await rig.claim(user) == claims[0]
    assert time.perf_counter() - began < 10
    await stop(rig, claims[0].sandbox.sandbox_id)


async def test_users_have_sandboxes_of_their_own(rig: Rig, sandbox_id: str) -> None:
    other = (await rig.claim(new_id())).sandbox.sandbox_id
    assert other != sandbox_id
    await rig.bash(sandbox_id, "echo mine > /workspace/mine.txt; echo mine > /tmp/mine.txt")
    assert await rig.bash(other, "ls -A /workspace /tmp/mine.txt") == (
        "ls: cannot access '/tmp/mine.txt': No such file or directory\n/workspace:\n"
    )
    await stop(rig, other)


@pytest.mark.parametrize("victim", ["bwrap", "opencode"])
async def test_a_killed_sandbox_ends_its_turn_and_keeps_the_session(rig: Rig, victim: str) -> None:
    user = new_id()
    sandbox_id = (await rig.claim(user)).sandbox.sandbox_id
    first = await rig.run(rig.turn(sandbox_id, "say a word to remember"))
    assert first[-1].HasField("completed")
    session = str(new_id())
    await rig.run(rig.turn(sandbox_id, "say another word", session_id=session))
    request = rig.turn(sandbox_id, scenario("slow", deltas=100, interval=0.05), session_id=session)
    pid = rig.live(sandbox_id).process.pid
    found: list[Event] = []
    killed = 0.0
    async for event in rig.stream(request):
        found.append(event)
        if not killed and "word3 " in text_of(found):
            (psutil.Process(pid) if victim == "bwrap" else agent_process(pid)).kill()
            killed = time.perf_counter()
    assert found[-1].failed.reason == reasons.ERROR_REASON_SANDBOX_LOST
    assert time.perf_counter() - killed < 15
    assert not psutil.pid_exists(pid)
    again = await rig.run(rig.turn(sandbox_id, "say back again", session_id=session))
    assert text_of(again) == "back again"
    assert "say another word" in str(rig.model.requests[-1].body["messages"])
    assert rig.live(sandbox_id).process.pid != pid
    await stop(rig, sandbox_id)


async def test_a_prompt_is_not_said_twice_when_nobody_had_read_of_its_run(rig: Rig) -> None:
    """The agent had the prompt, the service ended with all it knew, and nothing of the turn was written anywhere."""
    sandbox_id = (await rig.claim(new_id())).sandbox.sandbox_id
    request = rig.turn(sandbox_id, scenario("slow", deltas=200, interval=0.05))

    def asked() -> int:
        return sum(request.text in str(each.body["messages"][-1]) for each in rig.model.requests)

    before = asked()
    reader = asyncio.create_task(rig.run(request))
    for _ in range(500):
        if asked() > before:
            break
        await asyncio.sleep(0.02)
    reader.cancel()
    await rig.fleet.stop_all()
    rig.fleet.runs.clear()
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await rig.run(request)
    assert reason_of(refused.value) == "RUN_LOST"
    again = await rig.run(rig.turn(sandbox_id, "say fine", session_id=request.session_id))
    assert text_of(again) == "fine"
    assert asked() == before + 1
    await stop(rig, sandbox_id)


async def test_an_abort_before_there_is_anything_to_stop(rig: Rig) -> None:
    sandbox_id = (await rig.claim(new_id())).sandbox.sandbox_id
    await stop(rig, sandbox_id)
    asked = len(rig.model.requests)
    request = rig.turn(sandbox_id, "say no")
    running = asyncio.create_task(rig.run(request))
    while UUID(request.turn_id) not in rig.fleet.runs:  # noqa: ASYNC110 - nothing says when a call has arrived
        await asyncio.sleep(0.01)
    await rig.stub.AbortTurn(pb.AbortTurnRequest(turn_id=request.turn_id))
    assert [event.WhichOneof("event") for event in await running] == ["started", "aborted"]
    assert len(rig.model.requests) == asked
    await stop(rig, sandbox_id)


async def test_stopping_keeps_the_files(rig: Rig) -> None:
    user = new_id()
    sandbox_id = (await rig.claim(user)).sandbox.sandbox_id
    await rig.bash(sandbox_id, "echo kept > /workspace/kept.txt")
    running = asyncio.create_task(rig.run(rig.turn(sandbox_id, scenario("slow"))))
    await asyncio.sleep(0.5)
    stopped = await stop(rig, sandbox_id)
    assert stopped.state == sandbox_pb2.SANDBOX_STATE_STOPPED
    assert (await running)[-1].failed.reason == reasons.ERROR_REASON_SANDBOX_LOST
    assert await stop(rig, sandbox_id) == stopped
    assert (await rig.claim(user)).sandbox.sandbox_id == sandbox_id
    assert await rig.bash(sandbox_id, "cat /workspace/kept.txt") == "kept\n"
    await stop(rig, sandbox_id)


async def test_a_new_bundle_waits_for_the_turn(rig: Rig) -> None:
    user = new_id()
    claimed = (await rig.claim(user)).sandbox
    running = asyncio.create_task(rig.run(rig.turn(claimed.sandbox_id, scenario("slow", deltas=20, interval=0.05))))
    await asyncio.sleep(0.4)
    revision = f"revision-{new_id()}"
    write_bundle(rig.home / "runtime", revision)
    assert (await rig.claim(user)).sandbox.runtime_revision == claimed.runtime_revision
    assert (await running)[-1].HasField("completed")
    taken = (await rig.claim(user)).sandbox
    assert (taken.sandbox_id, taken.runtime_revision) == (claimed.sandbox_id, revision)
    await stop(rig, claimed.sandbox_id)


async def test_an_idle_sandbox_is_stopped(rig: Rig) -> None:
    sandbox_id = (await rig.claim(new_id())).sandbox.sandbox_id
    place = rig.fleet.place
    running = asyncio.create_task(rig.run(rig.turn(sandbox_id, scenario("slow", deltas=10, interval=0.1))))
    await asyncio.sleep(0.5)
    for live in rig.fleet._live.values():
        live.last_used += 3600 if str(live.sandbox.id) != sandbox_id else -60
    try:
        rig.fleet.place = replace(place, idle_seconds=30)
        await rig.fleet.sweep()
        assert rig.fleet.live(UUID(sandbox_id))
        assert (await running)[-1].HasField("completed")
        rig.live(sandbox_id).last_used -= 60
        await rig.fleet.sweep()
    finally:
        rig.fleet.place = place
    assert rig.fleet.live(UUID(sandbox_id)) is None
    assert (await get(rig, sandbox_id)).state == sandbox_pb2.SANDBOX_STATE_STOPPED


async def test_lists_go_page_by_page(rig: Rig, sandbox_id: str) -> None:
    with as_tenant(DEFAULT_TENANT):
        async with rig.store.transaction() as tx:
            made = [(await tx.find_or_create_sandbox(DEFAULT_TENANT, new_id())).id for _ in range(3)]
    listed: list[str] = []
    token = ""
    while True:
        page = await rig.stub.ListSandboxes(pb.ListSandboxesRequest(tenant_id=TENANT, page_size=2, page_token=token))
        listed += [sandbox.sandbox_id for sandbox in page.sandboxes]
        if not (token := page.next_page_token):
            break
    assert set(map(str, made)) <= set(listed)
    assert len(set(listed)) == len(listed)


async def test_another_tenant_finds_nothing(rig: Rig, sandbox_id: str) -> None:
    asked = pb.GetSandboxRequest(tenant_id=str(new_id()), sandbox_id=sandbox_id)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await rig.stub.GetSandbox(asked)
    assert reason_of(refused.value) == "SANDBOX_NOT_FOUND"
    request = rig.turn(sandbox_id, "say hi")
    request.tenant_id = str(new_id())
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await rig.run(request)
    assert reason_of(refused.value) == "SANDBOX_NOT_FOUND"


async def test_without_a_runtime_nothing_starts(rig: Rig) -> None:
    applied = rig.home / "runtime" / "applied"
    kept = applied.rename(applied.with_name("kept"))
    try:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await rig.claim(new_id())
    finally:
        kept.rename(applied)
    assert reason_of(refused.value) == "RUNTIME_NOT_APPLIED"


@pytest.mark.parametrize(("programs", "missing"), [((), "bwrap"), (("bwrap",), "socat"), (("bwrap", "socat"), "user")])
async def test_without_isolation_nothing_starts(
    programs: tuple[str, ...], missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for program in programs:
        # A bwrap that may not make namespaces says so, and ends with 1.
        (tmp_path / program).write_text("#!/bin/sh\necho 'No permissions to create a new namespace'\nexit 1\n")
        (tmp_path / program).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SandboxIsolationUnavailable) as refused:
        await Bubblewrap(Path("opencode")).check()
    assert refused.value.metadata["missing"].startswith(missing)


async def test_no_process_outlives_a_killed_service(tmp_path: Path) -> None:
    service = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _A_SERVICE, str(tmp_path), stdout=asyncio.subprocess.PIPE
    )
    assert service.stdout
    pid = int(await asyncio.wait_for(service.stdout.readline(), 30))
    inside = psutil.Process(pid).children(recursive=True)
    assert any(process.name() == "opencode" for process in inside)
    service.send_signal(signal.SIGKILL)
    await service.wait()
    gone, alive = psutil.wait_procs(inside, timeout=5)
    assert not alive
    assert len(gone) == len(inside)


_A_SERVICE = """
import asyncio, sys
from pathlib import Path
from sandbox.agent import BINARY, write_stub_plugin
from services.sandbox.bubblewrap import Bubblewrap
from services.sandbox.driver import Launch
from services.sandbox.fleet import environment

async def main(root):
    folders = {name: root / name for name in ("home", "workspace", "bundle", "config", "model_door", "bridge")}
    for folder in folders.values():
        folder.mkdir()
    write_stub_plugin(folders["config"])
    launch = Launch(name="orphan", log=root / "log", environment=environment("x", "y"), **folders)
    process = await Bubblewrap(BINARY).start(launch)
    await process.ready()
    print(process.pid, flush=True)
    await asyncio.sleep(60)

asyncio.run(main(Path(sys.argv[1])))
"""


async def stop(rig: Rig, sandbox_id: str) -> sandbox_pb2.Sandbox:
    """Stop a sandbox."""
    request = pb.StopSandboxRequest(tenant_id=TENANT, sandbox_id=sandbox_id)
    return (await rig.stub.StopSandbox(request)).sandbox


async def get(rig: Rig, sandbox_id: str) -> sandbox_pb2.Sandbox:
    """Read a sandbox."""
    request = pb.GetSandboxRequest(tenant_id=TENANT, sandbox_id=sandbox_id)
    return (await rig.stub.GetSandbox(request)).sandbox
