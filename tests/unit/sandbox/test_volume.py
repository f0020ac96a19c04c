"""The files of a sandbox and the bundle that it runs."""

import json
from pathlib import Path

import pytest

from sandbox.agent import version
from services.kit.ids import DEFAULT_TENANT, new_id
from services.sandbox.run import Model
from services.sandbox.sandbox import RuntimeNotApplied
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
