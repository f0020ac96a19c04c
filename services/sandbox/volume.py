"""The files of one sandbox on the host: what survives, and what each start makes anew."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from sandbox.agent import write_stub_plugin
from services.kit.ids import DEFAULT_TENANT
from services.sandbox.run import Model
from services.sandbox.sandbox import RuntimeNotApplied

_ANY_PROVIDER = "*"


@dataclass(frozen=True)
class Bundle:
    """The applied runtime: what the agent is configured with, and what we want to know of it."""

    folder: Path
    revision: str
    default_model: Model | None
    agents: Mapping[str, str]
    models: Mapping[str, frozenset[str]]

    def agent_for(self, model: Model) -> str:
        """The agent that a model is prompted with. Empty means the default of the bundle."""
        return self.agents.get(model.provider_id) or self.agents.get(_ANY_PROVIDER, "")

    def has(self, model: Model) -> bool:
        """Whether the bundle knows the model."""
        return model.model_id in self.models.get(model.provider_id, frozenset())


def applied_link(runtime: Path, tenant_id: UUID) -> Path:
    """The link to the applied bundle of a tenant."""
    return (runtime if tenant_id == DEFAULT_TENANT else runtime / "tenants" / str(tenant_id)) / "applied"


def read_bundle(link: Path) -> Bundle:
    """The bundle that is applied now.

    Raises:
        RuntimeNotApplied: There is none that can be read.
    """
    try:
        folder = link.resolve(strict=True)
        document = json.loads((folder / "runtime.json").read_text())
        default = document["default_model"]
        return Bundle(
            folder=folder,
            revision=document["revision"],
            default_model=Model(default["provider_id"], default["model_id"]) if default else None,
            agents=document.get("agents", {}),
            models={item["provider_id"]: frozenset(item["models"]) for item in document["providers"]},
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RuntimeNotApplied("no runtime is applied; apply one: oiab runtime apply") from error


@dataclass(frozen=True)
class Volume:
    """The folder of one sandbox."""

    root: Path

    @property
    def home(self) -> Path:
        """The agent's home: its sessions are here. It survives."""
        return self.root / "home"

    @property
    def workspace(self) -> Path:
        """The agent's work. It survives."""
        return self.root / "workspace"

    @property
    def bundle(self) -> Path:
        """A copy of the applied bundle, so that an apply does not change what a running agent reads."""
        return self.root / "bundle"

    @property
    def config(self) -> Path:
        """The agent's own configuration folder, which it cannot write."""
        return self.root / "config"

    @property
    def bridge(self) -> Path:
        """Where the sandbox puts the socket of its agent."""
        return self.root / "bridge"

    @property
    def log(self) -> Path:
        """What the sandbox printed since its last start."""
        return self.root / "sandbox.log"

    def prepare(self, bundle: Bundle) -> None:
        """Make everything that a start needs. No process of the sandbox may run."""
        for folder in (self.root, self.home, self.workspace):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in (self.bridge, self.bundle, self.config):
            shutil.rmtree(folder, ignore_errors=True)
        self.bridge.mkdir(mode=0o700)
        shutil.copytree(bundle.folder, self.bundle)
        write_stub_plugin(self.config)
        _make_mount_point(self.home, ".config", "opencode")


def _make_mount_point(folder: Path, *names: str) -> None:
    """Real folders on the way to a mount in the agent's home. A link that it left there would lead out of the home."""
    for name in names:
        folder /= name
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            folder.unlink()
        folder.mkdir(exist_ok=True)
