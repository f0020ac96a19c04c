"""The certificates of an installation: made before the first process starts, and renewed at half their life."""

import asyncio
import shutil
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509

from services.box.errors import BoxError
from services.box.home import Home, own_folder, write_once
from services.kit.certificates import (
    CERTIFICATE,
    ROOTS,
    Authority,
    CertificateUnusable,
    half_life,
    new_installation_id,
    write_issued,
)

# Every process of the mesh, and the supervisor, which asks them whether they do their work.
NAMES = ("api", "audit", "box", "envoy", "queue", "runtime", "sandbox", "worker")
LOOKS_PER_LIFE = 20
LONGEST_WAIT = 10.0


class AuthorityLost(BoxError):
    """The certificate authority of the installation is gone or damaged."""


def prepare(home: Home, life: timedelta) -> Authority:
    """See to it that the authority and a good certificate of every process are there, before any of them starts.

    Raises:
        AuthorityLost: The installation has had an authority, which cannot be used any more.
    """
    authority = _first_authority(home) if _is_new(home) else open_authority(home)
    write_once(home.installation_file, f"{authority.installation}\n")
    own_folder(home.certificates)
    renew(home, authority, life)
    return authority


def open_authority(home: Home) -> Authority:
    """The authority of an installation that has one.

    Raises:
        AuthorityLost: It cannot be used any more.
    """
    try:
        authority = Authority.open(home.authority)
    except CertificateUnusable as error:
        raise AuthorityLost(
            f"the certificate authority of this installation cannot be used: {error}. Put {home.authority} back from a "
            "backup, or run `oiab certificates renew-authority` to begin with a new one"
        ) from None
    if authority.expires < datetime.now(UTC):
        raise AuthorityLost(
            f"the certificate authority of this installation expired on {authority.expires:%Y-%m-%d}; "
            "run `oiab certificates renew-authority`"
        )
    return authority


def renew_authority(home: Home) -> Authority:
    """Begin with a new authority for the same installation. What the old one gave is worth nothing afterwards."""
    home.create()
    installation = installation_of(home)
    draft = home.authority.with_name("ca.new")
    shutil.rmtree(draft, ignore_errors=True)
    authority = Authority.create(draft, installation)
    shutil.rmtree(home.authority, ignore_errors=True)
    draft.rename(home.authority)
    shutil.rmtree(home.certificates, ignore_errors=True)
    return authority


def installation_of(home: Home) -> str:
    """The id of the installation; a new one when it has none yet."""
    try:
        return home.installation_file.read_text().strip() or new_installation_id()
    except FileNotFoundError:
        return new_installation_id()


def renew(home: Home, authority: Authority, life: timedelta) -> list[str]:
    """Replace the certificates that are past half their life, or not of this authority. The names of those."""
    due = [name for name in NAMES if is_due(home.certificates / name, authority, life)]
    for name in due:
        write_issued(home.certificates / name, authority.issue(name, life))
    return due


def is_due(folder: Path, authority: Authority, life: timedelta) -> bool:
    """Whether a certificate is to be replaced: past its half life, of another authority, or made for longer."""
    try:
        certificate = x509.load_pem_x509_certificate((folder / CERTIFICATE).read_bytes())
        roots = x509.load_pem_x509_certificates((folder / ROOTS).read_bytes())
    except (OSError, ValueError):
        return True
    now = datetime.now(UTC)
    made_for_longer = certificate.not_valid_after_utc > now + life
    return roots != [authority.certificate] or now >= half_life(certificate) or made_for_longer


async def keep_renewed(home: Home, authority: Authority, life: timedelta) -> None:
    """Renew certificates for ever. What cannot be written is tried again: there is half a life left for it."""
    while True:
        # The clock of the wall is asked each time: this machine may have slept.
        await asyncio.sleep(min(LONGEST_WAIT, life.total_seconds() / LOOKS_PER_LIFE))
        try:
            await asyncio.to_thread(renew, home, authority, life)
        except OSError as error:
            sys.stderr.write(f"certificates could not be renewed: {error}\n")


def _is_new(home: Home) -> bool:
    """Whether the installation has had no authority yet. One that is lost is not silently replaced by another."""
    return not (home.authority.exists() or home.installation_file.exists())


def _first_authority(home: Home) -> Authority:
    return Authority.create(home.authority, new_installation_id())
