"""Who tests are in the mesh: one authority for each run of the tests, and a certificate of it for every name."""

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

from services.kit.certificates import Authority, new_installation_id, write_issued
from services.kit.mesh import MeshIdentity


@cache
def authority() -> Authority:
    """The authority of this run."""
    return Authority.create(_folder() / "ca", new_installation_id())


def certificates(*names: str) -> Path:
    """The folder of the certificates, as OIAB_CERTIFICATES tells it to a process that has to be any of these."""
    for name in names:
        identity(name)
    return _folder() / "certs"


@cache
def identity(name: str) -> MeshIdentity:
    """The identity of a service."""
    write_issued(certificates() / name, authority().issue(name))
    return MeshIdentity.load(certificates() / name)


@cache
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="oiab-certs-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
