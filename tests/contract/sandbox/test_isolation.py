"""What an agent can reach from inside its sandbox, tried through its own bash tool."""

import asyncio
from pathlib import Path

import pytest

from services.kit.ids import new_id
from tests.contract.sandbox.rig import Rig
from tests.model_server import scenario

SECRET = "a-secret-of-the-host"


async def test_files_of_the_host_are_out_of_reach(rig: Rig, sandbox_id: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text(SECRET)
    printed = await rig.bash(
        sandbox_id,
        f"cat {secret}; ls {rig.home} {Path(__file__).parents[3]} /root /oldroot /newroot; "
        "find / -xdev -name 'secret.txt' 2>/dev/null; find / -maxdepth 1 | sort | tr '\\n' ' '",
    )
    assert SECRET not in printed
    assert printed.count("No such file or directory") >= 5
    assert set(printed.splitlines()[-1].split()) - {"/lib32", "/libx32"} == {
        "/", "/bin", "/bundle", "/dev", "/etc", "/home", "/lib", "/lib64",
        "/opt", "/proc", "/run", "/sbin", "/tmp", "/usr", "/workspace",
    }  # fmt: skip


async def test_only_its_own_places_can_be_written(rig: Rig, sandbox_id: str) -> None:
    places = ["/", "/usr", "/etc", "/bundle", "/run", "/run/model", "/opt/opencode", "/home/agent/.config/opencode"]
    refused = await rig.bash(sandbox_id, f"for p in {' '.join(places)}; do touch $p/x; done")
    assert refused.count("Read-only file system") == len(places)
    # Opened for writing, and not written: what would be changed is the host's.
    settings = "/proc/sys/kernel/core_pattern /proc/sys/vm/overcommit_memory /proc/sys/kernel/panic /proc/mtrr"
    opened = await rig.bash(
        sandbox_id, f"for p in {settings}; do (: >> $p) && echo $p; done; cat /proc/kcore /proc/keys"
    )
    assert "Read-only file system" in opened
    assert "\n/proc/" not in f"\n{opened}"
    own = "for p in /workspace /home/agent /tmp /dev/shm; do touch $p/x && echo $p && rm -f $p/x; done"
    # `rm` would ask for a permission.
    assert (await rig.bash(sandbox_id, own.replace(" && rm -f $p/x", ""))).split() == [
        "/workspace", "/home/agent", "/tmp", "/dev/shm",
    ]  # fmt: skip


async def test_processes_of_the_host_are_out_of_sight(rig: Rig, sandbox_id: str) -> None:
    mark = f"86400.{new_id().int % 10**9}"
    sleeper = await asyncio.create_subprocess_exec("sleep", mark)
    try:
        printed = await rig.bash(sandbox_id, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '; ls -d /proc/[0-9]* | wc -l")
        signalled = await rig.bash(sandbox_id, f"kill -9 {sleeper.pid}; kill -0 1 && echo own")
        assert sleeper.returncode is None
    finally:
        sleeper.kill()
        await sleeper.wait()
    assert mark not in printed
    assert int(printed.split()[-1]) < 20
    assert str(rig.home) not in printed
    assert "No such process" in signalled


async def test_the_network_of_the_host_is_out_of_reach(rig: Rig, sandbox_id: str) -> None:
    reached = asyncio.Event()

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reached.set()
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        printed = await rig.bash(
            sandbox_id,
            f"timeout 5 bash -c 'exec 3<>/dev/tcp/127.0.0.1/{port}' && echo reached; "
            "timeout 5 bash -c 'exec 3<>/dev/tcp/1.1.1.1/443' && echo reached; "
            "timeout 5 getent hosts example.com && echo reached; "
            "tail -n +3 /proc/net/dev | cut -d: -f1; tail -n +2 /proc/net/route | wc -l",
        )
    assert "reached" not in printed
    assert not reached.is_set()
    assert "Connection refused" in printed
    assert "Network is unreachable" in printed
    assert printed.split()[-2:] == ["lo", "0"]


async def test_only_the_doors_stand_open(rig: Rig, sandbox_id: str) -> None:
    (rig.home / "run" / "secret.sock").touch()
    printed = await rig.bash(sandbox_id, "find /run | sort | tr '\\n' ' '; cat /proc/net/unix | grep -c @")
    *found, abstract = printed.split()
    assert found == ["/run", "/run/bridge", "/run/bridge/agent.sock", "/run/model", "/run/model/model.sock"]
    assert abstract == "0"


async def test_no_secret_of_the_box_goes_in(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OIAB_DATABASE_URL", f"postgresql://{SECRET}@/x")
    monkeypatch.setenv("ANTHROPIC_API_KEY", SECRET)
    sandbox_id = (await rig.claim(new_id())).sandbox.sandbox_id
    printed = await rig.bash(sandbox_id, "{ env; cat /proc/[0-9]*/environ; cat /bundle/*.*; } | tr '\\0' '\\n'")
    assert SECRET not in printed
    assert str(rig.home) not in printed
    tokens = [line.partition("=")[2] for line in printed.splitlines() if line.startswith("OIAB_MODEL_TOKEN=")]
    assert set(tokens) == {rig.tokens[-1]}
    assert rig.model.requests[-1].authorization == f"Bearer {rig.tokens[-1]}"
    await rig.fleet.stop(rig.live(sandbox_id).sandbox.id)


async def test_there_are_no_further_namespaces(rig: Rig, sandbox_id: str) -> None:
    assert "made" not in await rig.bash(sandbox_id, "unshare -U true && echo made; unshare -Urn true && echo made")
    assert (await rig.bash(sandbox_id, "grep -E '^(CapEff|NoNewPrivs)' /proc/self/status")).split() == [
        "CapEff:", "0000000000000000", "NoNewPrivs:", "1",
    ]  # fmt: skip


async def test_memory_and_processes_are_limited(rig: Rig, sandbox_id: str) -> None:
    if not rig.live(sandbox_id).process.limited:
        pytest.skip("control groups cannot be written here")
    greedy = "python3 -c 'x = bytearray(3 * 2**30); print(len(x))'; echo ended with $?"
    assert (await rig.bash(sandbox_id, greedy)).endswith("ended with 137\n")
    many = "for i in $(seq 600); do sleep 3 & done; echo done"
    printed = await rig.bash(sandbox_id, many)
    assert "Resource temporarily unavailable" in printed
    assert await rig.bash(sandbox_id, "sleep 3; echo fine") == "fine\n"


async def test_traps_that_the_agent_leaves_lead_nowhere(rig: Rig, tmp_path: Path) -> None:
    user = new_id()
    sandbox_id = (await rig.claim(user)).sandbox.sandbox_id
    trap = tmp_path / "host"
    await rig.bash(
        sandbox_id,
        f"mv /home/agent/.config /home/agent/.old; ln -s {trap} /home/agent/.config; "
        f"mv /run/bridge/agent.sock /run/bridge/old.sock; ln -s {trap} /run/bridge/agent.sock; "
        "ls -A /home/agent /run/bridge",
    )
    # What runs goes on through the socket that was looked at.
    assert await rig.bash(sandbox_id, "echo still here") == "still here\n"
    await rig.fleet.stop(rig.live(sandbox_id).sandbox.id)
    await rig.claim(user)
    assert await rig.bash(sandbox_id, "test -L /home/agent/.config || echo real") == "real\n"
    assert not trap.exists()
    await rig.fleet.stop(rig.live(sandbox_id).sandbox.id)


async def test_the_prompt_reaches_the_model_through_the_door(rig: Rig, sandbox_id: str) -> None:
    await rig.run(rig.turn(sandbox_id, scenario("say", text="Hi.")))
    request = rig.model.requests[-1]
    assert request.path == "/scripted/chat/completions"
    assert request.authorization.removeprefix("Bearer ") in rig.tokens
