"""How Envoy's connections are secured: those of people before it, and those of the mesh behind it."""

import ipaddress
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509

from services.box.errors import BoxError
from services.kit.certificates import CERTIFICATE, KEY, ROOTS, dns_name, spiffe_id

LOOPBACK = "127.0.0.1"
_TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3"


@dataclass(frozen=True)
class Mesh:
    """How Envoy proves to the mesh who it is, and knows whom it calls."""

    certificates: Path
    """The folder of its certificate, which is renewed while it runs."""
    folder: Path
    """Where the files are that tell it of its certificate."""
    installation: str
    """The id of the installation."""

    @property
    def certificate_file(self) -> Path:
        """Tells Envoy where its certificate is."""
        return self.folder / "mesh_certificate.yaml"

    @property
    def roots_file(self) -> Path:
        """Tells Envoy whose certificates to trust."""
        return self.folder / "mesh_roots.yaml"


@dataclass(frozen=True)
class Certificate:
    """A certificate for people's programs, and where Envoy is told of it."""

    chain: Path
    key: Path
    file: Path

    def transport(self) -> dict[str, Any]:
        """TLS as people's programs speak it."""
        return {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": f"{_TLS}.DownstreamTlsContext",
                "common_tls_context": {
                    "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
                    "alpn_protocols": ["h2", "http/1.1"],
                    "tls_certificate_sds_secret_configs": [_from_file("edge_certificate", self.file)],
                },
            },
        }

    def secrets(self) -> dict[Path, dict[str, Any]]:
        """The file that tells Envoy of the certificate, which it reads again when the folder of it changes."""
        certificate = {
            "certificate_chain": {"filename": str(self.chain)},
            "private_key": {"filename": str(self.key)},
            "watched_directory": {"path": str(self.chain.parent)},
        }
        return {self.file: {"@type": f"{_TLS}.Secret", "name": "edge_certificate", "tls_certificate": certificate}}


@dataclass(frozen=True)
class Door:
    """Where people come in, and whether by TLS. Programs of this machine come in without it, on the same port."""

    bind: str = LOOPBACK
    tls: Certificate | None = None

    @property
    def open_to_others(self) -> bool:
        """Whether other machines can connect."""
        return not ipaddress.ip_address(self.bind).is_loopback

    def address(self, port: int) -> dict[str, Any]:
        """Where Envoy listens."""
        return _socket(self.bind, port)

    def more_addresses(self, port: int) -> list[dict[str, Any]]:
        """Where Envoy listens too: what runs on this machine finds the box where it always is."""
        address = ipaddress.ip_address(self.bind)
        return [] if address.is_unspecified or self.bind == LOOPBACK else [{"address": _socket(LOOPBACK, port)}]

    def inspectors(self) -> list[dict[str, Any]]:
        """What looks at the first bytes of a connection."""
        inspector = {"@type": "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"}
        return [{"name": "envoy.filters.listener.tls_inspector", "typed_config": inspector}] if self.tls else []

    def plain_match(self) -> dict[str, Any]:
        """Whose connections may be without TLS."""
        return {"transport_protocol": "raw_buffer", "source_type": "SAME_IP_OR_LOOPBACK"} if self.tls else {}


def mesh_transport(service: str, mesh: Mesh, protocol: str = "h2") -> dict[str, Any]:
    """How a service of the mesh is spoken to: by TLS 1.3, and each side proves its name."""
    name = {"san_type": "URI", "matcher": {"exact": spiffe_id(mesh.installation, service)}}
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": f"{_TLS}.UpstreamTlsContext",
            "sni": dns_name(service),
            "max_session_keys": 0,  # a session that is taken up again would outlive its certificate
            "common_tls_context": {
                "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
                "alpn_protocols": [protocol],
                "tls_certificate_sds_secret_configs": [_from_file("mesh_certificate", mesh.certificate_file)],
                "combined_validation_context": {
                    "default_validation_context": {"match_typed_subject_alt_names": [name]},
                    "validation_context_sds_secret_config": _from_file("mesh_roots", mesh.roots_file),
                },
            },
        },
    }


def mesh_secrets(mesh: Mesh) -> dict[Path, dict[str, Any]]:
    """The files that tell Envoy of its certificate, which it reads again whenever the folder of it changes."""
    watched = {"path": str(mesh.certificates)}
    certificate = {
        "certificate_chain": {"filename": str(mesh.certificates / CERTIFICATE)},
        "private_key": {"filename": str(mesh.certificates / KEY)},
        "watched_directory": watched,
    }
    roots = {"trusted_ca": {"filename": str(mesh.certificates / ROOTS)}, "watched_directory": watched}
    return {
        mesh.certificate_file: {"@type": f"{_TLS}.Secret", "name": "mesh_certificate", "tls_certificate": certificate},
        mesh.roots_file: {"@type": f"{_TLS}.Secret", "name": "mesh_roots", "validation_context": roots},
    }


def _from_file(name: str, file: Path) -> dict[str, Any]:
    return {"name": name, "sds_config": {"resource_api_version": "V3", "path_config_source": {"path": str(file)}}}


def _socket(host: str, port: int) -> dict[str, Any]:
    both = {"ipv4_compat": True} if host == "::" else {}
    return {"socket_address": {"address": host, "port_value": port, **both}}


class CertificateRefused(BoxError):
    """The certificate of the edge cannot be used."""


def check_certificate(chain: Path, key: Path) -> datetime:
    """Make sure that a certificate can be used now; when it ends.

    Raises:
        CertificateRefused: It cannot.
    """
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(chain, key)
        ends = x509.load_pem_x509_certificate(chain.read_bytes()).not_valid_after_utc
    except OSError as error:  # SSLError is one
        said = "they do not fit, or one is damaged" if isinstance(error, ssl.SSLError) else error.strerror
        raise CertificateRefused(
            f"OIAB_TLS_CERTIFICATE {chain} and OIAB_TLS_KEY {key} cannot be used: {said}"
        ) from None
    except ValueError:
        raise CertificateRefused(f"OIAB_TLS_CERTIFICATE {chain} holds no certificate") from None
    if ends < datetime.now(UTC):
        raise CertificateRefused(f"OIAB_TLS_CERTIFICATE {chain} expired on {ends:%Y-%m-%d}; renew it")
    return ends
