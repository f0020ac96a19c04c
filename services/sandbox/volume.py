"""The files of one sandbox on the host: what survives, and what each start makes anew."""

import contextlib
import errno
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from sandbox.agent import write_stub_plugin
from services.kit.ids import DEFAULT_TENANT
from services.sandbox.run import Model
from services.sandbox.sandbox import RuntimeNotApplied, SandboxStartFailed

_ANY_PROVIDER = "*"
# One file is open per level while a folder is removed.
_DEPTH = 64


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
        """Make everything that a start needs. No process of the sandbox may run.

        Raises:
            SandboxStartFailed: The disk, or what the agent left on it, does not allow it.
        """
        try:
            self._prepare(bundle)
        except OSError as error:
            raise SandboxStartFailed("the files of the sandbox cannot be made ready") from error

    def _prepare(self, bundle: Bundle) -> None:
        for folder in (self.root, self.home, self.workspace):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in (self.home, self.workspace):
            with _opened(folder):
                pass
        for folder in (self.bridge, self.bundle, self.config):
            _clear(folder)
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
        with _opened(folder):
            pass


def _clear(folder: Path) -> None:
    """Take away a folder that the agent may have written into. One that it made irremovable is set aside."""
    with contextlib.suppress(OSError):
        _remove(folder)
    if os.path.lexists(folder):
        folder.rename(folder.with_name(f"{folder.name}-{secrets.token_hex(4)}"))


def _remove(folder: Path | str, parent: int | None = None, depth: int = _DEPTH) -> None:
    if not depth:
        raise OSError(errno.EMFILE, "nested too deeply")
    with _opened(folder, parent) as handle:
        with os.scandir(f"/proc/self/fd/{handle}") as entries:
            found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        for name, is_folder in found:
            if is_folder:
                _remove(name, handle, depth - 1)
            else:
                os.unlink(name, dir_fd=handle)
    os.rmdir(folder, dir_fd=parent)


@contextlib.contextmanager
def _opened(folder: Path | str, parent: int | None = None) -> Iterator[int]:
    """A handle on a folder whose modes the agent may have taken away: they are given back. Links are not followed."""
    handle = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        Path(f"/proc/self/fd/{handle}").chmod(0o700)
        yield handle
    finally:
        os.close(handle)
