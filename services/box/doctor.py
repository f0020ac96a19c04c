"""Checks of the machine: what Org in a Box needs, whether it is there, and what to do when it is not."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sandbox import agent
from services.box import certificates, demo_model, envoy, postgres
from services.box.contract import read_contract
from services.box.errors import BoxError
from services.box.home import Home
from services.box.settings import Settings
from services.box.state import running_state
from services.box.transport import check_certificate

FREE_BYTES = 2 * 1024**3
OLDEST_PYTHON = (3, 11)
OLDEST_NODE = 20
AUTHORITY_WARNING = timedelta(days=90)
EDGE_WARNING = timedelta(days=14)


@dataclass(frozen=True)
class Check:
    """One thing that is needed, and how it stands."""

    name: str
    fine: bool
    found: str
    remedy: str = ""
    caution: str = ""
    """What to know of it though it is fine."""


def examine(home: Home, settings: Settings) -> Iterator[Check]:
    """Every check, one after the other."""
    yield _user()
    yield _python()
    yield _program("setpriv", "install the package util-linux")
    yield _program("unshare", "install the package util-linux")
    yield _program("bwrap", "install the package bubblewrap")
    yield _program("socat", "install the package socat")
    yield _user_namespaces()
    yield _node()
    yield _opencode()
    yield _asked("envoy", lambda: str(envoy.binary()))
    yield _asked("contract", lambda: f"{len(read_contract().services)} services")
    yield _database(settings)
    if settings.demo_model:
        yield _asked("demo model", lambda: f"{demo_model.weights().stat().st_size // 1_000_000} MB of weights")
    yield _home(home)
    yield _certificates(home)
    yield _disk(home)
    yield _port(home, settings)
    yield _edge(settings)


def _user() -> Check:
    if os.geteuid() != 0:
        return Check("user", True, f"uid {os.geteuid()}")
    caution = "an agent's programs are root too outside their sandbox, without its powers; better run it as a user"
    return Check("user", True, "root", caution=caution)


def _python() -> Check:
    fine = sys.version_info >= OLDEST_PYTHON
    return Check("python", fine, sys.version.split()[0], "install Python 3.11 or newer and run `make install` again")


def _program(name: str, remedy: str) -> Check:
    found = shutil.which(name)
    return Check(name, found is not None, found or "not found", remedy)


def _node() -> Check:
    version = _said("node", "--version")
    fine = version.startswith("v") and int(version[1:].split(".")[0]) >= OLDEST_NODE
    # Only the installation needs it: the agent's program is self-contained.
    return Check("node", fine, version or "not found", f"install Node.js {OLDEST_NODE} or newer, with npm")


def _opencode() -> Check:
    version = _said(str(agent.BINARY), "--version")
    return Check("opencode", bool(version), version or f"{agent.BINARY} does not run", "run `make install`")


def _user_namespaces() -> Check:
    """Whether a sandbox can be made, and what PostgreSQL runs in, by making them."""
    sandbox = ("bwrap", "--unshare-all", "--unshare-user", "--die-with-parent", "--ro-bind", "/", "/", "--", "true")
    for argv in (sandbox, (*postgres.own_namespace(), "true")):
        done = _run(argv)
        if done is None or done.returncode != 0:
            said = done.stderr.strip() if done else f"{argv[0]} does not run"
            return Check("isolation", False, said, _namespace_remedy())
    return Check("isolation", True, "a sandbox can be made")


def _namespace_remedy() -> str:
    """What to change so that a sandbox can be made, by what forbids it."""
    if _kernel("apparmor_restrict_unprivileged_userns") == "1":
        return (
            "AppArmor forbids user namespaces: add a profile for bwrap that allows `userns`, "
            "or run `sysctl -w kernel.apparmor_restrict_unprivileged_userns=0` as root"
        )
    if _kernel("unprivileged_userns_clone") == "0":
        return "run `sysctl -w kernel.unprivileged_userns_clone=1` as root"
    return "allow user namespaces; in a container, run it with a seccomp profile that allows unshare and clone"


def _database(settings: Settings) -> Check:
    if settings.database_url is None:
        return _asked("postgres", lambda: f"{postgres.version_of(postgres.binary('postgres'))}, embedded")
    url = settings.database_url.get_secret_value()

    def ask() -> str:
        postgres.check_external(url)
        return "yours, by OIAB_DATABASE_URL"

    return _asked("postgres", ask)


def _home(home: Home) -> Check:
    place = home.root if home.root.exists() else home.root.parent
    fine = os.access(place, os.W_OK | os.X_OK)
    return Check("home", fine, str(home.root), "set OIAB_HOME to a folder that you may write")


def _certificates(home: Home) -> Check:
    """Whether the parts of the mesh will know each other, today and in the months to come."""
    if certificates.is_new(home):
        return Check("identity", True, "the certificates are made at the first start")
    try:
        authority = certificates.open_authority(home)
    except BoxError as error:
        return Check("identity", False, str(error))
    left = authority.expires - datetime.now(UTC)
    found = f"the certificate authority is good until {authority.expires:%Y-%m-%d}"
    late = [standing.name for standing in certificates.standings(home) if standing.overdue]
    if late and running_state(home):
        remedy = "see whether the disk is full, then run `oiab down` and `oiab up`"
        return Check("identity", False, f"not renewed: the certificates of {', '.join(late)}", remedy)
    caution = "run `oiab certificates renew-authority` while the box is stopped, before it expires"
    return Check("identity", True, found, caution=caution if left < AUTHORITY_WARNING else "")


def _disk(home: Home) -> Check:
    place = next(folder for folder in (home.root, *home.root.parents) if folder.exists())
    free = shutil.disk_usage(place).free
    return Check(
        "disk", free >= FREE_BYTES, f"{free / 1024**3:.0f} GiB free", "make room, or set OIAB_HOME to another disk"
    )


def _port(home: Home, settings: Settings) -> Check:
    if state := running_state(home):
        return Check("port", True, f"this installation answers on {state.address}")
    with socket.socket() as client:
        taken = client.connect_ex(("127.0.0.1", settings.port)) == 0
    found = f"{settings.port} is taken by another program" if taken else f"{settings.port} is free"
    return Check("port", not taken, found, "set OIAB_PORT to a free port")


def _edge(settings: Settings) -> Check:
    """Who can reach the box, and whether what they say can be seen on the way."""
    if settings.tls_certificate and settings.tls_key:
        try:
            ends = check_certificate(settings.tls_certificate, settings.tls_key)
        except BoxError as error:
            return Check("edge", False, str(error))
        soon = ends - datetime.now(UTC) < EDGE_WARNING
        found = f"TLS on {settings.bind}, its certificate is good until {ends:%Y-%m-%d}"
        return Check("edge", True, found, caution="renew OIAB_TLS_CERTIFICATE" if soon else "")
    if settings.insecure_edge:
        return Check("edge", True, f"open on {settings.bind}", caution="it needs something before it that speaks TLS")
    return Check("edge", True, "for this machine only")


def _asked(name: str, ask: Callable[[], str]) -> Check:
    """A check whose refusal says what to do."""
    try:
        return Check(name, True, ask())
    except BoxError as error:
        return Check(name, False, str(error))


def _said(*argv: str) -> str:
    done = _run(argv)
    return done.stdout.strip() if done and done.returncode == 0 else ""


def _run(argv: tuple[str, ...]) -> subprocess.CompletedProcess[str] | None:
    try:
        return subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None


def _kernel(name: str) -> str:
    path = Path("/proc/sys/kernel", name)
    return path.read_text().strip() if path.exists() else ""
