"""The home folder: where one installation keeps everything it has, and the secrets in it."""

import fcntl
import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from dotenv import dotenv_values

from services.box.errors import BoxError

# A unix socket's path holds 107 bytes. The longest that is ever put below the run folder names a sandbox by its id.
LONGEST_SOCKET = 107
ROOM_BELOW_RUN = 60
# Stands in the environment of every process of a home, so that `oiab down` finds them whoever started them,
# and of nothing else.
MARK = "OIAB_SUPERVISED_HOME"


@dataclass(frozen=True)
class Home:
    """The folders and files of one installation. Two installations never share one."""

    root: Path
    run: Path

    @classmethod
    def locate(cls, environ: Mapping[str, str]) -> Self:
        """The home that the environment names, without touching the disk."""
        named = environ.get("OIAB_HOME") or "~/.orginabox"
        root = Path(os.path.abspath(Path(named).expanduser()))  # noqa: PTH100 - a link stays the name people know
        return cls(root, run_folder(root))

    @property
    def logs(self) -> Path:
        """One log file for each process."""
        return self.root / "logs"

    @property
    def secrets(self) -> Path:
        """One file for each generated secret."""
        return self.root / "secrets"

    @property
    def authority(self) -> Path:
        """The certificate authority of the installation. Its key makes every name of the mesh."""
        return self.root / "ca"

    @property
    def certificates(self) -> Path:
        """One folder for each process of the mesh, with its certificate and key."""
        return self.root / "certs"

    @property
    def installation_file(self) -> Path:
        """Holds the id of the installation."""
        return self.root / "installation_id"

    @property
    def postgres(self) -> Path:
        """The data folder of the embedded database."""
        return self.root / "postgres"

    @property
    def envoy(self) -> Path:
        """The rendered configuration of Envoy, and the clusters that Runtime writes."""
        return self.root / "envoy"

    @property
    def clusters_file(self) -> Path:
        """The model providers as Envoy clusters; Runtime replaces it at each apply."""
        return self.envoy / "clusters.yaml"

    @property
    def staged(self) -> Path:
        """The runtime bundle that the next apply takes."""
        return self.root / "runtime" / "staged"

    @property
    def applied(self) -> Path:
        """The runtime bundle that sandboxes read."""
        return self.root / "runtime" / "applied"

    @property
    def sandboxes(self) -> Path:
        """The files of the sandboxes."""
        return self.root / "sandboxes"

    @property
    def settings_file(self) -> Path:
        """Settings that hold for every start, as `NAME=value` lines; the environment wins over them."""
        return self.root / "config.env"

    @property
    def state_file(self) -> Path:
        """What the supervisor runs, for who asks from outside."""
        return self.root / "state.json"

    @property
    def model_folder(self) -> Path:
        """Holds the socket of the model door; sandboxes see this folder and nothing else of the run folder."""
        return self.run / "model"

    def socket(self, name: str) -> Path:
        """The unix socket on which a process listens."""
        return self.run / f"{name}.sock"

    def settings(self) -> dict[str, str]:
        """The settings that hold for every start."""
        return {name: value for name, value in dotenv_values(self.settings_file).items() if value is not None}

    def create(self) -> None:
        """Make every folder that is missing, each for its owner only."""
        own_folder(self.root)
        own_folder(self.run)
        below = (self.logs, self.secrets, self.envoy, self.applied.parent, self.sandboxes)
        for folder in (*below, self.model_folder):
            own_folder(folder)

    def leave(self) -> None:
        """Remove what is of no use when nothing runs."""
        self.state_file.unlink(missing_ok=True)
        if not self.run.is_relative_to(self.root):
            shutil.rmtree(self.run, ignore_errors=True)

    def secret(self, name: str) -> str:
        """The secret of that name, generated the first time it is asked for."""
        path = self.secrets / name
        if not path.exists():
            write_once(path, secrets.token_urlsafe(32))
        return path.read_text().strip()

    def api_key(self, environ: Mapping[str, str]) -> str:
        """The key that opens the API: the one that is set, else the one generated for this home."""
        told = {**self.settings(), **environ}
        return told.get("ORGINABOX_API_KEY") or self.secret("api_key")

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the home, so that no second supervisor can run it."""
        with (self.root / "lock").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise HomeBusy(f"another supervisor runs {self.root}") from None
            yield


class HomeBusy(BoxError):
    """Another supervisor holds the home."""


class HomeRefused(BoxError):
    """A folder is not safe to keep secrets in."""


def run_folder(root: Path) -> Path:
    """The folder for sockets: in the home, or a short one where the home's name is too long for a socket's path."""
    run = root / "run"
    if len(os.fsencode(run)) + ROOM_BELOW_RUN <= LONGEST_SOCKET:
        return run
    # Not below XDG_RUNTIME_DIR: cron and ssh sessions differ in it, and all must find the same sockets.
    digest = hashlib.sha256(os.fsencode(root)).hexdigest()[:12]
    return Path(f"/tmp/oiab-{os.geteuid()}-{digest}")  # noqa: S108 - own_folder() refuses what is not ours


def own_folder(folder: Path) -> None:
    """Make the folder, or take the one there is if it is ours; close it to others."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except FileExistsError:
        raise HomeRefused(f"{folder} is not a folder; move it away or set OIAB_HOME to another place") from None
    except OSError as error:
        raise HomeRefused(f"{folder} cannot be made ({error.strerror}); set OIAB_HOME to another place") from None
    found = folder.stat(follow_symlinks=False)
    if found.st_uid != os.geteuid() or (not stat.S_ISDIR(found.st_mode) and not owned_link(folder)):
        raise HomeRefused(f"{folder} belongs to another user; remove it or set OIAB_HOME to another place")
    folder.chmod(0o700)


def owned_link(folder: Path) -> bool:
    """Whether the folder is a link of ours to a folder of ours, as when a home lies on another disk."""
    target = folder.stat()
    return stat.S_ISDIR(target.st_mode) and target.st_uid == os.geteuid()


def write_once(path: Path, text: str) -> None:
    """Write a file that only its owner reads, unless somebody else was first."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    write_private(draft, text)
    with suppress(FileExistsError):
        path.hardlink_to(draft)
    draft.unlink()


def write_private(path: Path, text: str, *, durable: bool = True) -> None:
    """Write a file that only its owner reads, in place of what was there, in one step."""
    draft = path.with_name(f".{path.name}.new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        if durable:
            os.fsync(file.fileno())
    draft.replace(path)
