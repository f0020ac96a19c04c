"""Certificates: what is in them, how they lie on the disk, and that a reader never mixes two of them."""

import stat
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from services.kit.certificates import (
    CERTIFICATE,
    CLOCK_SKEW,
    KEY,
    ROOTS,
    Authority,
    CertificateUnusable,
    half_life,
    new_installation_id,
    spiffe_of,
    write_issued,
)
from services.kit.mesh import MeshIdentity


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.create(tmp_path / "ca", "oiab0installation")


def test_a_certificate_says_who_and_for_how_long(authority: Authority) -> None:
    certificate = x509.load_pem_x509_certificate(authority.issue("queue", timedelta(hours=2)).certificate)
    certificate.verify_directly_issued_by(authority.certificate)
    now = datetime.now(UTC)
    assert spiffe_of(certificate) == "spiffe://oiab0installation/service/queue"
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["queue.orginabox.internal"]
    usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(usages) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert certificate.not_valid_before_utc <= now - CLOCK_SKEW
    assert timedelta(hours=1.99) < certificate.not_valid_after_utc - now <= timedelta(hours=2)
    assert timedelta(hours=0.99) < half_life(certificate) - now <= timedelta(hours=1)


def test_an_authority_is_for_its_installation_only(authority: Authority) -> None:
    limits = authority.certificate.extensions.get_extension_for_class(x509.NameConstraints)
    assert limits.critical
    assert {name.value for name in limits.value.permitted_subtrees or ()} == {
        "oiab0installation",
        "orginabox.internal",
    }
    basic = authority.certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert (basic.ca, basic.path_length) == (True, 0)
    assert timedelta(days=3650) < authority.expires - datetime.now(UTC) < timedelta(days=3655)


def test_serial_numbers_are_random(authority: Authority) -> None:
    serials = {x509.load_pem_x509_certificate(authority.issue("api").certificate).serial_number for _ in range(50)}
    assert len(serials) == 50
    assert min(serials).bit_length() > 60


def test_no_certificate_outlives_its_authority(tmp_path: Path) -> None:
    short = Authority.create(tmp_path / "short", new_installation_id(), timedelta(minutes=1))
    certificate = x509.load_pem_x509_certificate(short.issue("api", timedelta(days=1)).certificate)
    assert certificate.not_valid_after_utc == short.expires


def test_only_the_owner_reads_keys(authority: Authority, tmp_path: Path) -> None:
    write_issued(tmp_path / "certs" / "api", authority.issue("api"))
    found = [path for path in tmp_path.rglob("*") if not path.is_symlink()]
    assert {path.name for path in found} >= {"root.key", "root.pem", CERTIFICATE, KEY, ROOTS}
    for path in found:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600) or path.name == "certs", path


def test_an_authority_is_read_again_and_never_written_over(authority: Authority, tmp_path: Path) -> None:
    assert Authority.open(tmp_path / "ca").certificate == authority.certificate
    with pytest.raises(OSError, match="not empty"):
        Authority.create(tmp_path / "ca", "oiab0installation")
    assert Authority.open(tmp_path / "ca").certificate == authority.certificate


@pytest.mark.parametrize("name", ["root.key", "root.pem"])
def test_half_an_authority_cannot_be_used(authority: Authority, tmp_path: Path, name: str) -> None:
    (tmp_path / "ca" / name).unlink()
    with pytest.raises(CertificateUnusable, match=rf"{name} is missing"):
        Authority.open(tmp_path / "ca")


def test_a_damaged_authority_cannot_be_used(authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "ca" / "root.key").write_text("nonsense")
    with pytest.raises(CertificateUnusable, match="cannot be read"):
        Authority.open(tmp_path / "ca")
    Authority.create(tmp_path / "other", "oiab0installation")
    (tmp_path / "ca" / "root.key").write_bytes((tmp_path / "other" / "root.key").read_bytes())
    with pytest.raises(CertificateUnusable, match="does not belong to"):
        Authority.open(tmp_path / "ca")


@pytest.mark.parametrize("name", ["", "Api", "a/b", "../api", "a.b", "x" * 50, "api\n"])
def test_odd_names_get_no_certificate(authority: Authority, name: str) -> None:
    with pytest.raises(CertificateUnusable, match="cannot be the name of a service"):
        authority.issue(name)


def test_a_reader_never_mixes_two_certificates(authority: Authority, tmp_path: Path) -> None:
    folder = tmp_path / "api"
    write_issued(folder, authority.issue("api"))
    stop, faults, reads = threading.Event(), [], 0

    def read() -> None:
        nonlocal reads
        while not stop.is_set():
            try:
                found = MeshIdentity.load(folder).credentials
                assert found.key.public_key() == found.certificate.public_key()
                reads += 1
            except Exception as error:  # noqa: BLE001 - each is a fault
                faults.append(error)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for _ in range(150):
        write_issued(folder, authority.issue("api"))
    stop.set()
    for reader in readers:
        reader.join()
    assert not faults
    assert reads > 50
    assert len([path for path in folder.iterdir() if path.is_dir() and not path.is_symlink()]) == 2


def test_a_missing_certificate_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(CertificateUnusable, match="oiab certificates issue queue"):
        MeshIdentity.load(tmp_path / "queue")


def test_an_expired_certificate_says_what_to_do(authority: Authority, tmp_path: Path) -> None:
    write_issued(tmp_path / "api", authority.issue("api", timedelta(seconds=-1)))
    with pytest.raises(CertificateUnusable, match="has expired"):
        MeshIdentity.load(tmp_path / "api")


def test_a_certificate_without_links_is_read_too(authority: Authority, tmp_path: Path) -> None:
    """As who mounts three files into a container has it."""
    issued = authority.issue("worker")
    for name, content in ((CERTIFICATE, issued.certificate), (KEY, issued.key), (ROOTS, issued.roots)):
        (tmp_path / name).write_bytes(content)
    assert MeshIdentity.load(tmp_path).name == "worker"


def test_names_of_other_installations_are_nobodys(authority: Authority, tmp_path: Path) -> None:
    write_issued(tmp_path / "api", authority.issue("api"))
    own = MeshIdentity.load(tmp_path / "api")
    assert own.name_of("spiffe://oiab0installation/service/worker") == "worker"
    assert own.name_of("spiffe://oiab0installation2/service/worker") == ""
    assert own.name_of("spiffe://other/service/worker") == ""
    assert own.name_of("spiffe://oiab0installation/user/worker") == ""
