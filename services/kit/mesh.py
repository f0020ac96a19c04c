"""Who a process is in the mesh, and who its peers are: all their connections are TLS 1.3 with both names."""

import threading
import time
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from services.kit import telemetry
from services.kit.certificates import CERTIFICATE, KEY, ROOTS, CertificateUnusable, issued_at, spiffe_of

LOOK_EVERY_SECONDS = 0.25
LOOK_AGAIN_SECONDS = 10.0
CONNECTION_SHARE = 0.25
"""For what share of a certificate's life a connection takes new calls."""
_READS = 5

_SERVING: ContextVar["MeshIdentity"] = ContextVar("mesh_identity")


@dataclass(frozen=True)
class Credentials:
    """The certificate of this process as it is now, with its key and the roots that it trusts."""

    certificate_pem: bytes
    key_pem: bytes = field(repr=False)
    roots_pem: bytes = field(repr=False)
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = field(repr=False)
    roots: tuple[x509.Certificate, ...]

    @property
    def spiffe_id(self) -> str:
        """The name in the certificate."""
        return spiffe_of(self.certificate)

    @property
    def expires(self) -> datetime:
        """When the certificate ends."""
        return self.certificate.not_valid_after_utc


class MeshIdentity:
    """The name of this process in the mesh, and the certificate that proves it, which is renewed while it runs.

    Args:
        folder: Where the certificate is (`cert.pem`, `key.pem` and `ca.pem`).
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen = _stamp(folder)
        self._credentials = _read(folder)
        self._look_at = 0.0
        self._lock = threading.Lock()
        installation, separator, name = self._credentials.spiffe_id.removeprefix("spiffe://").partition("/service/")
        if not (installation and separator and name):
            raise CertificateUnusable(f"the certificate in {folder} names no service of an installation")
        self.installation = installation
        """The id of the installation that this process belongs to."""
        self.name = name
        """The name of the service that this process is."""

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The identity whose certificate is in a folder.

        Raises:
            CertificateUnusable: There is none, or it cannot be used.
        """
        identity = cls(folder)
        if identity.credentials.expires < datetime.now(UTC):
            raise CertificateUnusable(
                f"the certificate in {folder} has expired; `oiab up` renews those of its own machine, "
                f"`oiab certificates issue {identity.name}` makes one for another"
            )
        return identity

    @property
    def folder(self) -> Path:
        """Where the certificate is, for libraries that read it from files."""
        return self._folder

    @property
    def credentials(self) -> Credentials:
        """The certificate as it is now. When a new one is in the folder, it is this one from then on."""
        if (now := time.monotonic()) >= self._look_at:
            self._look_at = now + LOOK_EVERY_SECONDS
            self._look()
        return self._credentials

    def server_credentials(self) -> grpc.ServerCredentials:
        """What a server needs: each handshake takes the newest certificate, and asks the client for its own."""
        return grpc.dynamic_ssl_server_credentials(
            self._configuration(), self._configuration, require_client_authentication=True
        )

    def server_options(self) -> list[tuple[str, Any]]:
        """What a server needs besides: after a while a connection takes no new calls, and its client connects anew.

        Certificates are renewed at half their life, so no connection outlives the certificate that it began with.
        """
        certificate = self.credentials.certificate
        life = certificate.not_valid_after_utc - issued_at(certificate)
        return [("grpc.max_connection_age_ms", int(life.total_seconds() * 1000 * CONNECTION_SHARE))]

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """What a channel needs. A channel keeps the certificate that it began with."""
        found = self.credentials
        return grpc.ssl_channel_credentials(found.roots_pem, found.key_pem, found.certificate_pem)

    def peer_of(self, context: grpc.aio.ServicerContext[Any, Any]) -> str:
        """The name of the service at the other end of a call. Empty when it has proved none of this installation."""
        names = list(context.auth_context().get("peer_spiffe_id", ()))
        return self.name_of(names[0].decode(errors="replace")) if len(names) == 1 else ""

    def name_of(self, spiffe: str) -> str:
        """The name in a SPIFFE id of this installation. Empty for any other."""
        prefix = f"spiffe://{self.installation}/service/"
        return spiffe.removeprefix(prefix) if spiffe.startswith(prefix) else ""

    def _configuration(self) -> grpc.ServerCertificateConfiguration:
        self._look()
        found = self._credentials
        return grpc.ssl_server_certificate_configuration([(found.key_pem, found.certificate_pem)], found.roots_pem)

    def _look(self) -> None:
        """Take the new certificate, if there is one. Handshakes look from threads of their own."""
        with self._lock:
            try:
                stamp = _stamp(self._folder)
                if stamp == self._seen:
                    return
                self._credentials, self._seen = self._read_own(), stamp
            except CertificateUnusable as error:
                self._look_at = time.monotonic() + LOOK_AGAIN_SECONDS
                telemetry.log().warning("no new certificate", error=str(error))
                return
        telemetry.log().info("certificate renewed", expires=self._credentials.expires.isoformat())

    def _read_own(self) -> Credentials:
        found = _read(self._folder)
        if self.name_of(found.spiffe_id) != self.name:
            raise CertificateUnusable(f"the new certificate in {self._folder} is not one of {self.name}")
        return found


def serve_as(identity: MeshIdentity) -> None:
    """Note whose server runs, for all that is called from here on."""
    _SERVING.set(identity)


def own_identity() -> MeshIdentity:
    """The identity of the server that handles the current call."""
    return _SERVING.get()


def peer_of(context: grpc.aio.ServicerContext[Any, Any]) -> str:
    """The name of the service that makes the current call, such as `worker`. Empty when it has proved none."""
    serving = _SERVING.get(None)
    return serving.peer_of(context) if serving else ""


def _stamp(folder: Path) -> tuple[tuple[int, int, int], ...]:
    """What differs when a file of the folder is another one."""
    try:
        stats = [(folder / name).stat() for name in (CERTIFICATE, KEY, ROOTS)]
    except OSError:
        raise CertificateUnusable(
            f"there is no certificate in {folder}; `oiab up` makes those of its own machine, "
            f"`oiab certificates issue {folder.name}` makes one for another"
        ) from None
    return tuple((stat.st_ino, stat.st_mtime_ns, stat.st_size) for stat in stats)


def _read(folder: Path) -> Credentials:
    """The certificate of a folder with the key that belongs to it."""
    for _ in range(_READS):
        # All three out of the generation that is the current one now.
        place = (folder / CERTIFICATE).resolve().parent
        try:
            certificate_pem, key_pem, roots_pem = ((place / name).read_bytes() for name in (CERTIFICATE, KEY, ROOTS))
            certificate = x509.load_pem_x509_certificate(certificate_pem)
            key = load_pem_private_key(key_pem, password=None)
            roots = tuple(x509.load_pem_x509_certificates(roots_pem))
        except OSError:
            continue  # the generation went: there is a newer one
        except ValueError as error:
            raise CertificateUnusable(f"the certificate in {folder} cannot be read: {error}") from None
        if isinstance(key, ec.EllipticCurvePrivateKey) and key.public_key() == certificate.public_key():
            return Credentials(certificate_pem, key_pem, roots_pem, certificate, key, roots)
    raise CertificateUnusable(f"in {folder}, {KEY} does not belong to {CERTIFICATE}, or cannot be read")
