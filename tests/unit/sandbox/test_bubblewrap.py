"""What bwrap is told, and what is never told where others can read it."""

import os
from pathlib import Path

import pytest

from services.sandbox import bubblewrap, cgroup
from services.sandbox.driver import Launch, Limits
from services.sandbox.fleet import environment
from services.sandbox.sandbox import SandboxStartFailed


@pytest.fixture
def launch(tmp_path: Path) -> Launch:
    """A launch of nothing in particular."""
    return Launch(
        name="n",
        home=tmp_path / "home",
        workspace=tmp_path / "workspace",
        bundle=tmp_path / "bundle",
        config=tmp_path / "config",
        model_door=tmp_path / "model",
        bridge=tmp_path / "bridge",
        log=tmp_path / "log",
        environment=environment("the-password", "the-token"),
    )


def options(launch: Launch) -> list[str]:
    """The options of bwrap."""
    with bubblewrap._Files() as files:
        return bubblewrap._options(launch, Path("/somewhere/opencode"), files, [])


def binds(told: list[str], kind: str) -> dict[str, str]:
    """Where things come from, by where they go."""
    return {told[i + 2]: told[i + 1] for i, option in enumerate(told) if option == kind}


def test_every_namespace_is_its_own(launch: Launch) -> None:
    told = options(launch)
    for namespace in ("user", "pid", "ipc", "uts", "net"):
        assert f"--unshare-{namespace}" in told
    assert "--die-with-parent" in told
    assert "--new-session" in told
    assert "--share-net" not in told


def test_only_three_places_can_be_written(launch: Launch) -> None:
    assert binds(options(launch), "--bind") == {
        "/home/agent": str(launch.home), "/workspace": str(launch.workspace), "/run/bridge": str(launch.bridge),
    }  # fmt: skip
    read_only = binds(options(launch), "--ro-bind")
    assert read_only["/bundle"] == str(launch.bundle)
    assert read_only["/home/agent/.config/opencode"] == str(launch.config)
    assert read_only["/run/model"] == str(launch.model_door)
    assert read_only["/proc/sys"] == "/proc/sys"
    assert options(launch)[-2:] == ["--remount-ro", "/"]


def test_mounts_inside_others_come_after_them(launch: Launch) -> None:
    told = options(launch)
    assert told.index("/home/agent") < told.index("/home/agent/.config/opencode")
    assert told.index("--proc") < told.index("/proc/sys")


def test_no_secret_stands_in_options(launch: Launch) -> None:
    told = " ".join(options(launch))
    assert "the-password" not in told
    assert "the-token" not in told
    assert "--setenv" not in told
    assert "the-password" not in repr(launch)


def test_files_in_memory_hold_what_they_are_given() -> None:
    with bubblewrap._Files() as files:
        number = files.options(["--bind", "a b", "c"])
        assert os.read(number, 100) == b"--bind\0a b\0c\0"
        assert files.numbers == [number]
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.read(number, 1)


def test_a_socket_is_taken_and_a_link_is_not(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    with pytest.raises(FileNotFoundError):
        bubblewrap._open_socket(path)
    path.symlink_to("/dev/log")
    with pytest.raises(FileNotFoundError):
        bubblewrap._open_socket(path)


def test_the_environment_is_all_there_is() -> None:
    told = environment("p", "t")
    assert told["OPENCODE_SERVER_PASSWORD"] == "p"
    assert told["OIAB_MODEL_TOKEN"] == "t"
    assert told["OPENCODE_DISABLE_PROJECT_CONFIG"] == "1"
    assert not [name for name in told if "KEY" in name or "DATABASE" in name]


def test_version_one_groups(tmp_path: Path) -> None:
    for controller, files in {"memory": ["memory.limit_in_bytes"], "pids": ["pids.max"]}.items():
        for folder in (tmp_path / controller, tmp_path / controller / "oiab-x"):
            folder.mkdir()
            for name in (*files, "cgroup.procs"):
                (folder / name).touch()
    group = cgroup.create("x", Limits(memory_bytes=1000, pids=7), tmp_path)
    assert group
    assert (tmp_path / "memory/oiab-x/memory.limit_in_bytes").read_text() == "1000"
    assert (tmp_path / "pids/oiab-x/pids.max").read_text() == "7"
    assert [file.parent.name for file in group.member_files] == ["oiab-x", "oiab-x"]


def test_version_two_needs_controllers_given_to_children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memberships = tmp_path / "self"
    memberships.write_text("0::/app/own\n")
    monkeypatch.setattr(cgroup, "_MEMBERSHIP", memberships)
    root = tmp_path / "root"
    (root / "app/oiab-x").mkdir(parents=True)
    (root / "cgroup.controllers").touch()
    for name in ("memory.max", "pids.max", "memory.swap.max", "cgroup.procs"):
        (root / "app/oiab-x" / name).touch()
    assert cgroup.create("x", Limits(), root) is None
    (root / "app/cgroup.subtree_control").write_text("cpu memory pids")
    assert cgroup.create("x", Limits(pids=9), root)
    assert (root / "app/oiab-x/pids.max").read_text() == "9"


def test_where_no_group_can_be_made_there_is_none(tmp_path: Path) -> None:
    assert cgroup.create("x", Limits(), tmp_path) is None


async def test_a_missing_agent_is_told_with_what_to_do(launch: Launch, tmp_path: Path) -> None:
    with pytest.raises(SandboxStartFailed, match="make install"):
        await bubblewrap.Bubblewrap(tmp_path / "opencode").start(launch)
