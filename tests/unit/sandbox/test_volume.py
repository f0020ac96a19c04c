"""The files of a sandbox and the bundle that it runs."""

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.agent import version
from services.kit.ids import DEFAULT_TENANT, new_id
from services.sandbox import volume as volumes
from services.sandbox.run import Model
from services.sandbox.sandbox import RuntimeNotApplied, SandboxStartFailed
from services.sandbox.volume import Volume, applied_link, read_bundle

RUNTIME = {
    "revision": "r1",
    "default_model": {"provider_id": "p", "model_id": "m"},
    "agents": {"demo": "short", "*": "main"},
    "providers": [{"provider_id": "p", "models": ["m"]}, {"provider_id": "demo", "models": ["d"]}],
}


@pytest.fixture
def bundle_folder(tmp_path: Path) -> Path:
    """A bundle."""
    folder = tmp_path / "applied"
    folder.mkdir()
    (folder / "runtime.json").write_text(json.dumps(RUNTIME))
    return folder


def test_a_bundle_names_models_and_agents(bundle_folder: Path) -> None:
    bundle = read_bundle(bundle_folder)
    assert (bundle.revision, bundle.default_model) == ("r1", Model("p", "m"))
    assert bundle.agent_for(Model("p", "m")) == "main"
    assert bundle.agent_for(Model("demo", "d")) == "short"
    assert bundle.has(Model("p", "m"))
    assert not bundle.has(Model("p", "x"))
    assert not bundle.has(Model("x", "m"))


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"revision": 1}'])
def test_no_bundle_is_said(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "runtime.json").write_text(content)
    with pytest.raises(RuntimeNotApplied):
        read_bundle(tmp_path if content is not None else tmp_path / "nowhere")


def test_tenants_have_bundles_of_their_own(tmp_path: Path) -> None:
    tenant = new_id()
    assert applied_link(tmp_path, DEFAULT_TENANT) == tmp_path / "applied"
    assert applied_link(tmp_path, tenant) == tmp_path / "tenants" / str(tenant) / "applied"


def test_what_survives_and_what_is_made_anew(bundle_folder: Path, tmp_path: Path) -> None:
    volume = Volume(tmp_path / "volume")
    bundle = read_bundle(bundle_folder)
    volume.prepare(bundle)
    for folder in (volume.home, volume.workspace, volume.bridge, volume.config):
        (folder / "left").touch()
    volume.prepare(bundle)
    assert [folder.name for folder in (volume.home, volume.workspace, volume.bridge, volume.config)
            if (folder / "left").exists()] == ["home", "workspace"]  # fmt: skip
    assert (volume.bundle / "runtime.json").exists()
    plugin = volume.config / "node_modules/@opencode-ai/plugin/package.json"
    assert json.loads(plugin.read_text())["version"] == version()


def test_links_in_the_home_are_not_followed(bundle_folder: Path, tmp_path: Path) -> None:
    volume, trap = Volume(tmp_path / "volume"), tmp_path / "trap"
    trap.mkdir()
    volume.home.mkdir(parents=True)
    (volume.home / ".config").symlink_to(trap)
    volume.prepare(read_bundle(bundle_folder))
    assert (volume.home / ".config" / "opencode").is_dir()
    assert not list(trap.iterdir())


@pytest.fixture
def ordinary_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of a user to whom modes mean something, which they do not to root. The test runs as that user."""
    monkeypatch.setattr(volumes, "write_stub_plugin", lambda folder: folder.mkdir())
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        # The parents of pytest's own are closed to others.
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "runtime.json").write_text(json.dumps(RUNTIME))
            yield Path(folder)
            for found in Path(folder).rglob("*"):
                if found.is_dir() and not found.is_symlink():
                    found.chmod(0o700)
    finally:
        if root:
            os.seteuid(0)


def test_modes_that_the_agent_took_away_do_not_matter(ordinary_folder: Path) -> None:
    bundle = ordinary_folder / "bundle"
    bundle.mkdir()
    (ordinary_folder / "runtime.json").rename(bundle / "runtime.json")
    volume = Volume(ordinary_folder / "volume")
    volume.prepare(read_bundle(bundle))
    (volume.bridge / "x" / "y").mkdir(parents=True)
    (volume.bridge / "x" / "file").touch()
    for closed in (volume.bridge / "x" / "y", volume.bridge / "x", volume.bridge, volume.home / ".config"):
        closed.chmod(0)
    for closed in (volume.home, volume.workspace):
        closed.chmod(0)
    volume.prepare(read_bundle(bundle))
    assert not list(volume.bridge.iterdir())
    assert (volume.home / ".config" / "opencode").is_dir()
    assert sorted(folder.name for folder in volume.root.iterdir()) == [
        "bridge", "bundle", "config", "home", "workspace",
    ]  # fmt: skip


def test_links_in_what_is_removed_are_not_followed(bundle_folder: Path, tmp_path: Path) -> None:
    volume, trap = Volume(tmp_path / "volume"), tmp_path / "trap"
    trap.mkdir(mode=0o500)
    (trap / "kept").touch()
    volume.prepare(read_bundle(bundle_folder))
    (volume.bridge / "folder").symlink_to(trap)
    (volume.bridge / "file").symlink_to(trap / "kept")
    (volume.bridge / "nowhere").symlink_to("nowhere")
    volume.prepare(read_bundle(bundle_folder))
    assert not list(volume.bridge.iterdir())
    assert (trap / "kept").exists()
    assert trap.stat().st_mode & 0o777 == 0o500


def test_what_cannot_be_removed_is_set_aside(bundle_folder: Path, tmp_path: Path) -> None:
    volume = Volume(tmp_path / "volume")
    volume.prepare(read_bundle(bundle_folder))
    (volume.bridge / "/".join("d" * 100)).mkdir(parents=True)
    volume.prepare(read_bundle(bundle_folder))
    assert not list(volume.bridge.iterdir())
    assert [folder.name for folder in volume.root.iterdir() if folder.name.startswith("bridge-")]


def test_a_start_that_the_disk_does_not_allow_is_refused(bundle_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "volume").touch()
    with pytest.raises(SandboxStartFailed):
        Volume(tmp_path / "volume").prepare(read_bundle(bundle_folder))
