"""The certificates of an installation: made once, renewed in time, and never silently replaced when they are lost."""

import asyncio
import shutil
import stat
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from services.box import certificates
from services.box.certificates import NAMES, AuthorityLost, keep_renewed, prepare, renew, standings
from services.box.commands import app
from services.box.doctor import _certificates
from services.box.home import Home
from services.box.state import BoxState, write_state
from services.kit import certificates as kit
from services.kit.mesh import MeshIdentity

DAY = timedelta(days=1)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home that has had no start yet."""
    monkeypatch.setenv("OIAB_HOME", str(tmp_path / "home"))
    made = Home(tmp_path / "home", tmp_path / "home" / "run")
    made.create()
    return made


def serials(home: Home) -> dict[str, int]:
    """What tells one certificate from another."""
    found = {name: MeshIdentity.load(home.certificates / name).credentials for name in NAMES}
    return {name: each.certificate.serial_number for name, each in found.items()}


def test_the_first_start_makes_everything(home: Home) -> None:
    authority = prepare(home, DAY)
    assert home.installation_file.read_text().strip() == authority.installation
    assert {standing.name for standing in standings(home) if standing.good} == set(NAMES)
    for name in NAMES:
        assert MeshIdentity.load(home.certificates / name).name == name
    private = [home.authority, home.certificates, *home.certificates.iterdir()]
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in private} == {0o700}
    keys = [home.authority / "root.key", *home.certificates.glob("*/key.pem")]
    assert {stat.S_IMODE(key.stat().st_mode) for key in keys} == {0o600}
    assert len(keys) == len(NAMES) + 1


def test_the_next_start_keeps_what_is_good(home: Home) -> None:
    first, before = prepare(home, DAY), serials(home)
    second = prepare(home, DAY)
    assert second.certificate == first.certificate
    assert serials(home) == before


def test_certificates_are_renewed_at_half_their_life(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = prepare(home, DAY)
    now = datetime.now(UTC)

    def at(moment: datetime) -> None:
        class Clock(datetime):
            @classmethod
            def now(cls, _: object = None) -> datetime:  # type: ignore[override]
                return moment

        monkeypatch.setattr(certificates, "datetime", Clock)

    at(now + timedelta(hours=11.9))
    assert renew(home, authority, DAY) == []
    at(now + timedelta(hours=12.1))
    assert renew(home, authority, DAY) == list(NAMES)


def test_a_shorter_life_counts_at_once(home: Home) -> None:
    authority = prepare(home, DAY)
    assert renew(home, authority, timedelta(minutes=10)) == list(NAMES)
    assert renew(home, authority, timedelta(minutes=10)) == []


@pytest.mark.parametrize("damage", ["gone", "nonsense", "strange"])
def test_a_certificate_that_cannot_be_used_is_replaced(home: Home, damage: str, tmp_path: Path) -> None:
    authority = prepare(home, DAY)
    folder = home.certificates / "queue"
    match damage:
        case "gone":
            shutil.rmtree(folder)
        case "nonsense":
            (folder / "cert.pem").write_text("nonsense")
        case "strange":
            kit.write_issued(folder, kit.Authority.create(tmp_path / "ca", "strange0one").issue("queue"))
    assert renew(home, authority, DAY) == ["queue"]


@pytest.mark.parametrize("lost", ["ca", "ca/root.key", "ca/root.pem"])
def test_a_lost_authority_is_told_and_not_replaced(home: Home, lost: str) -> None:
    prepare(home, DAY)
    path = home.root / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(AuthorityLost, match=r"backup, or run `oiab certificates renew-authority`"):
        prepare(home, DAY)
    assert not path.exists()
    assert not _certificates(home).fine


def test_an_expired_authority_is_told(home: Home) -> None:
    kit.Authority.create(home.authority, "oiab0test0test", timedelta(seconds=-1))
    with pytest.raises(AuthorityLost, match="expired on"):
        prepare(home, DAY)


def test_a_new_authority_is_for_the_same_installation(home: Home) -> None:
    first = prepare(home, DAY)
    shutil.rmtree(home.authority)
    done = CliRunner().invoke(app, ["certificates", "renew-authority"])
    assert done.exit_code == 0, done.output
    second = prepare(home, DAY)
    assert second.installation == first.installation
    assert second.certificate != first.certificate
    assert MeshIdentity.load(home.certificates / "api").credentials.roots == (second.certificate,)


def test_an_authority_is_not_renewed_under_a_running_box(home: Home) -> None:
    before = prepare(home, DAY)
    with home.lock():
        done = CliRunner().invoke(app, ["certificates", "renew-authority"])
    assert done.exit_code == 1
    assert "stop it first" in done.output
    assert kit.Authority.open(home.authority).certificate == before.certificate


def test_a_certificate_for_a_process_elsewhere(home: Home, tmp_path: Path) -> None:
    authority = prepare(home, DAY)
    done = CliRunner().invoke(app, ["certificates", "issue", "worker", "--out", str(tmp_path / "w"), "--hours", "2"])
    assert done.exit_code == 0, done.output
    made = MeshIdentity.load(tmp_path / "w")
    assert (made.name, made.installation) == ("worker", authority.installation)
    assert made.credentials.expires < datetime.now(UTC) + timedelta(hours=2)
    odd = CliRunner().invoke(app, ["certificates", "issue", "../x", "--out", str(tmp_path / "x")])
    assert odd.exit_code == 1
    assert "cannot be the name of a service" in odd.output


def test_certificates_can_be_listed(home: Home) -> None:
    assert CliRunner().invoke(app, ["certificates", "list"]).exit_code == 1
    prepare(home, DAY)
    done = CliRunner().invoke(app, ["certificates", "list"])
    assert done.exit_code == 0
    assert all(name in done.output for name in NAMES)
    kit.write_issued(home.certificates / "api", kit.Authority.open(home.authority).issue("api", timedelta(seconds=-1)))
    done = CliRunner().invoke(app, ["certificates", "list"])
    assert done.exit_code == 1
    assert "expired" in done.output


def test_the_doctor_tells_of_the_authority(home: Home) -> None:
    assert _certificates(home).fine
    prepare(home, DAY)
    assert _certificates(home).caution == ""
    shutil.rmtree(home.authority)
    kit.Authority.create(home.authority, "oiab0test0test", timedelta(days=30))
    assert "renew-authority" in _certificates(home).caution
    shutil.rmtree(home.authority)
    kit.Authority.create(home.authority, "oiab0test0test", timedelta(seconds=-1))
    assert not _certificates(home).fine


def test_the_doctor_tells_of_certificates_that_nobody_renews(home: Home) -> None:
    authority = prepare(home, DAY)
    kit.write_issued(home.certificates / "queue", authority.issue("queue", timedelta(seconds=-1)))
    assert _certificates(home).fine, "the next start makes a new one"
    write_state(home, BoxState.of_this_process("http://127.0.0.1:1"))
    check = _certificates(home)
    assert not check.fine
    assert "queue" in check.found


async def test_certificates_are_renewed_for_ever(home: Home) -> None:
    life = timedelta(seconds=2)
    authority = prepare(home, life)
    before = serials(home)
    renewing = asyncio.create_task(keep_renewed(home, authority, life))
    await asyncio.sleep(1.6)
    renewing.cancel()
    with suppress(asyncio.CancelledError):
        await renewing
    after = serials(home)
    assert all(before[name] != after[name] for name in NAMES)


async def test_what_cannot_be_written_is_tried_again(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    life = timedelta(seconds=2)
    authority = prepare(home, life)
    asked = 0

    def full(*_: object) -> None:
        nonlocal asked
        asked += 1
        raise OSError("no space left on device")

    monkeypatch.setattr(certificates, "renew", full)
    renewing = asyncio.create_task(keep_renewed(home, authority, life))
    await asyncio.sleep(0.5)
    renewing.cancel()
    with suppress(asyncio.CancelledError):
        await renewing
    assert asked > 2
    assert "no space left" in capsys.readouterr().err
