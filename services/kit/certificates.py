"""The certificate authority of an installation, and the short-lived certificates by which its parts know each other.

A part's certificate names it as `spiffe://<installation>/service/<name>`. The authority's own certificate is limited to
this installation, so nobody accepts another's names from it. A folder of certificates is replaced in one step: its
files are links into a generation, and only the link to the generation changes.
"""

import os
import re
import secrets
import shutil
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DNS_DOMAIN = "orginabox.internal"
AUTHORITY_LIFE = timedelta(days=3652)
CERTIFICATE_LIFE = timedelta(hours=24)
CLOCK_SKEW = timedelta(minutes=15)
"""How far the clocks of two machines may differ: certificates are dated back by it."""

CERTIFICATE, KEY, ROOTS = "cert.pem", "key.pem", "ca.pem"
_ROOT_CERTIFICATE, _ROOT_KEY = "root.pem", "root.key"
_CURRENT = "current"
_BOTH_SIDES = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
_NAME = re.compile(r"[a-z][a-z0-9-]{0,40}")
_INSTALLATION = re.compile(r"[a-z0-9]{8,63}")


class CertificateUnusable(Exception):
    """A certificate or a key is not there, or cannot be used; the message says what to do."""


@dataclass(frozen=True)
class Issued:
    """A certificate of one part of the mesh, with its key and the authority that gave it."""

    certificate: bytes
    key: bytes = field(repr=False)
    roots: bytes = field(repr=False)


@dataclass(frozen=True)
class Authority:
    """Who gives certificates to the parts of one installation."""

    certificate: x509.Certificate
    _key: ec.EllipticCurvePrivateKey = field(repr=False)

    @classmethod
    def create(cls, folder: Path, installation: str, life: timedelta = AUTHORITY_LIFE) -> Self:
        """Make the authority of a new installation, whole or not at all. An authority that exists is not touched."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _root(key, installation, life)
        draft = folder.with_name(f".{folder.name}.{os.getpid()}")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700, parents=True)
        write_private(draft / _ROOT_KEY, _pem(key))
        write_private(draft / _ROOT_CERTIFICATE, certificate.public_bytes(Encoding.PEM))
        draft.rename(folder)  # fails where there is something
        return cls(certificate, key)

    @classmethod
    def open(cls, folder: Path) -> Self:
        """The authority that is kept in a folder.

        Raises:
            CertificateUnusable: It is not there, or not whole.
        """
        try:
            certificate = x509.load_pem_x509_certificate((folder / _ROOT_CERTIFICATE).read_bytes())
            key = load_pem_private_key((folder / _ROOT_KEY).read_bytes(), password=None)
        except FileNotFoundError as error:
            raise CertificateUnusable(f"{error.filename} is missing") from None
        except (OSError, ValueError) as error:
            raise CertificateUnusable(f"the certificate authority in {folder} cannot be read: {error}") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            raise CertificateUnusable(f"in {folder}, {_ROOT_KEY} does not belong to {_ROOT_CERTIFICATE}")
        return cls(certificate, key)

    @property
    def installation(self) -> str:
        """The id of the installation."""
        return spiffe_of(self.certificate).removeprefix("spiffe://")

    @property
    def expires(self) -> datetime:
        """When the authority's own certificate ends."""
        return self.certificate.not_valid_after_utc

    def issue(self, name: str, life: timedelta = CERTIFICATE_LIFE) -> Issued:
        """A new certificate with a new key for a part of the mesh."""
        if not _NAME.fullmatch(name):
            raise CertificateUnusable(
                f"{name!r} cannot be the name of a service: use small letters, digits and hyphens"
            )
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        builder = (
            _builder(name, now, min(now + life, self.expires))
            .issuer_name(self.certificate.subject)
            .public_key(key.public_key())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(digital_signature=True), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .add_extension(
                x509.SubjectAlternativeName(
                    [
                        x509.UniformResourceIdentifier(spiffe_id(self.installation, name)),
                        x509.DNSName(dns_name(name)),
                    ]
                ),
                critical=False,
            )
        )
        certificate = builder.sign(self._key, hashes.SHA256())
        return Issued(certificate.public_bytes(Encoding.PEM), _pem(key), self.certificate.public_bytes(Encoding.PEM))


def new_installation_id() -> str:
    """A random id of an installation. It is the host of its SPIFFE names, so it is made of small letters and digits."""
    return f"oiab{secrets.token_hex(10)}"


def spiffe_id(installation: str, name: str) -> str:
    """The name of a part of the mesh."""
    return f"spiffe://{installation}/service/{name}"


def dns_name(name: str) -> str:
    """The name by which a client asks for a part of the mesh, wherever it listens."""
    return f"{name}.{DNS_DOMAIN}"


def spiffe_of(certificate: x509.Certificate) -> str:
    """The one SPIFFE name in a certificate. Empty when there is none, or more than one."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ""
    found = names.get_values_for_type(x509.UniformResourceIdentifier)
    return found[0] if len(found) == 1 and found[0].startswith("spiffe://") else ""


def issued_at(certificate: x509.Certificate) -> datetime:
    """When a certificate was made: it is dated back."""
    return certificate.not_valid_before_utc + CLOCK_SKEW


def half_life(certificate: x509.Certificate) -> datetime:
    """When a certificate is to be replaced."""
    begin, end = issued_at(certificate), certificate.not_valid_after_utc
    return begin + (end - begin) / 2


def write_issued(folder: Path, issued: Issued) -> None:
    """Put a certificate in a folder in place of the one that is there, in one step for who reads it meanwhile."""
    generation = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(4)}"
    (folder / generation).mkdir(mode=0o700, parents=True)
    folder.chmod(0o700)
    files = {CERTIFICATE: issued.certificate, KEY: issued.key, ROOTS: issued.roots}
    for name, content in files.items():
        write_private(folder / generation / name, content)
    previous = (folder / _CURRENT).readlink().name if (folder / _CURRENT).is_symlink() else ""
    _link(folder / _CURRENT, generation)
    for name in files:
        if not (folder / name).is_symlink():
            _link(folder / name, f"{_CURRENT}/{name}")
    # A reader may be in the middle of the generation before this one.
    for old in folder.iterdir():
        if old.is_dir() and not old.is_symlink() and old.name not in {generation, previous}:
            shutil.rmtree(old, ignore_errors=True)


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner reads."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _link(path: Path, target: str) -> None:
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    draft.symlink_to(target)
    draft.rename(path)


def _root(key: ec.EllipticCurvePrivateKey, installation: str, life: timedelta) -> x509.Certificate:
    if not _INSTALLATION.fullmatch(installation):
        raise CertificateUnusable(f"{installation!r} cannot be the id of an installation")
    now = datetime.now(UTC)
    # Whoever verifies a certificate of this authority refuses every name that is not of this installation.
    permitted = [x509.UniformResourceIdentifier(installation), x509.DNSName(DNS_DOMAIN)]
    builder = (
        _builder(f"Org in a Box {installation}", now, now + life)
        .issuer_name(_name(f"Org in a Box {installation}"))
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(key_cert_sign=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.NameConstraints(permitted_subtrees=permitted, excluded_subtrees=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"spiffe://{installation}")]), critical=False
        )
    )
    return builder.sign(key, hashes.SHA256())


def _builder(subject: str, now: datetime, end: datetime) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(end)
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _key_usage(*, digital_signature: bool = False, key_cert_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
