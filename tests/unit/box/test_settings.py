"""What may be set about the edge, and what is refused because others would see what people say."""

import shutil
import ssl
from pathlib import Path

import pytest

from services.box.home import Home
from services.box.installation import Installation, PortTaken
from services.box.settings import SettingsRefused, read_settings
from services.box.transport import LOOPBACK, CertificateRefused, Door, check_certificate
from tests.certificates import Authority


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home in which nothing is set."""
    for name in ("BIND", "TLS_CERTIFICATE", "TLS_KEY", "INSECURE_EDGE", "PORT"):
        monkeypatch.delenv(f"OIAB_{name}", raising=False)
    made = Home(tmp_path, tmp_path / "run")
    made.create()
    return made


def told(home: Home, **settings: str) -> None:
    """Set something in the home."""
    home.settings_file.write_text("".join(f"OIAB_{name.upper()}={value}\n" for name, value in settings.items()))


TLS = {"tls_certificate": "/etc/box/cert.pem", "tls_key": "/etc/box/key.pem"}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"bind": "127.0.0.2"},
        {"bind": "::1"},
        {"bind": "0.0.0.0", **TLS},
        {"bind": "192.0.2.1", **TLS},
        {"bind": "::", "insecure_edge": "true"},
        TLS,
    ],
)
def test_doors_that_are_safe(home: Home, settings: dict[str, str]) -> None:
    told(home, **settings)
    assert read_settings(home).bind == settings.get("bind", LOOPBACK)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"bind": "0.0.0.0"}, "they need TLS: set OIAB_TLS_CERTIFICATE and OIAB_TLS_KEY"),
        ({"bind": "::"}, "they need TLS"),
        ({"bind": "192.0.2.1", "insecure_edge": "false"}, "they need TLS"),
        ({"bind": "box.example"}, "no IP address of this machine"),
        ({"tls_certificate": "/etc/box/cert.pem"}, "or neither"),
        ({"tls_key": "/etc/box/key.pem"}, "or neither"),
        ({"tls_certificate": "cert.pem", "tls_key": "/key.pem"}, "OIAB_TLS_CERTIFICATE: write the whole path"),
        ({"tls_certificate": "/cert.pem", "tls_key": "key.pem"}, "OIAB_TLS_KEY: write the whole path"),
    ],
)
def test_doors_that_are_not(home: Home, settings: dict[str, str], sentence: str) -> None:
    told(home, **settings)
    with pytest.raises(SettingsRefused, match=sentence):
        read_settings(home)


def test_an_address_of_another_machine_is_refused(home: Home) -> None:
    told(home, bind="198.51.100.1", port="18787", insecure_edge="true")
    with pytest.raises(PortTaken, match="OIAB_BIND: this machine has no address"):
        Installation(home, read_settings(home), {}).refuse_taken_port()


def test_what_runs_here_finds_the_box_at_its_usual_address() -> None:
    assert Door("0.0.0.0").more_addresses(1) == []
    assert Door().more_addresses(1) == []
    for bound in ("192.0.2.1", "127.0.0.2", "::1"):
        assert Door(bound).more_addresses(1)[0]["address"]["socket_address"]["address"] == LOOPBACK


def test_a_certificate_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    Authority(tmp_path, ["localhost"])
    chain, key = tmp_path / "server.pem", tmp_path / "server.key"
    check_certificate(chain, key)
    with pytest.raises(CertificateRefused, match="No such file"):
        check_certificate(tmp_path / "nothing.pem", key)
    other = tmp_path / "other"
    other.mkdir()
    Authority(other, ["localhost"])
    shutil.copy(other / "server.key", key)
    with pytest.raises(CertificateRefused, match="do not fit"):
        check_certificate(chain, key)
    assert issubclass(ssl.SSLError, OSError)
