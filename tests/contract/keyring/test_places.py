"""Every place for a master key over HTTP: it wraps, binds, rotates, and tells little when it fails."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from services.kit.errors import DomainError
from services.kit.keyring import KeyringDenied, KeyringMismatch, KeyringUnavailable, KeyringUnusable
from services.kit.keyring import azure_master as azure_module
from services.kit.keyring.master import MasterKey, Wrapped, open_master, prove
from tests.keyring import fake_azure
from tests.keyring.fake_vault import FakeVault
from tests.keyring.places import PLACES, REGION, Place, kms_key, place

KEY = b"a data key of 32 bytes, so long."
CONTEXT = {"room": "runtime", "tenant": "t", "key": "k1"}

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


@pytest.fixture(params=PLACES)
def found(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    with place(request.param, tmp_path) as found:
        yield found


@pytest.fixture
def in_azure(tmp_path: Path) -> Iterator[Place]:
    with place("azure-kv", tmp_path) as found:
        yield found


@pytest.fixture
def in_vault(tmp_path: Path) -> Iterator[Place]:
    with place("vault", tmp_path) as found:
        yield found


@pytest.fixture
def in_aws(tmp_path: Path) -> Iterator[Place]:
    with place("aws-kms", tmp_path) as found:
        yield found


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give up after a moment."""
    for module in ("vault_master", "aws_master"):
        monkeypatch.setattr(f"services.kit.keyring.{module}.READ_SECONDS", 0.3)
    monkeypatch.setitem(azure_module._TIMES, "read_timeout", 0.3)


async def test_a_key_is_wrapped_and_unwrapped(found: Place) -> None:
    master = open_master(found.address)
    await prove(master)
    wrapped = await master.wrap(KEY, CONTEXT)
    assert KEY not in wrapped.ciphertext
    assert wrapped.master_key_id == await master.key_id()
    assert await open_master(found.address).unwrap(wrapped, CONTEXT) == KEY
    assert await open_master(found.address).owns(wrapped.master_key_id)
    assert not await master.owns("file:01234567")
    assert master.original("") is None


async def test_a_key_opens_in_its_context_only(found: Place) -> None:
    master = open_master(found.address)
    wrapped = await master.wrap(KEY, CONTEXT)
    for name in CONTEXT:
        with pytest.raises(KeyringMismatch):
            await master.unwrap(wrapped, CONTEXT | {name: "other"})


async def test_what_was_changed_does_not_open(found: Place) -> None:
    master = open_master(found.address)
    wrapped = await master.wrap(KEY, CONTEXT)
    last = len(wrapped.ciphertext) - 1
    # What names the key is in the clear in AWS's form: KMS denies then, and does not say that it cannot be opened.
    refusals = (KeyringMismatch, KeyringDenied)
    for at in {0, last // 4, last // 2, 3 * last // 4, last - 4}:
        changed = bytearray(wrapped.ciphertext)
        changed[at] ^= 4
        with pytest.raises(refusals):
            await master.unwrap(Wrapped(wrapped.master_key_id, bytes(changed)), CONTEXT)
    with pytest.raises(refusals):
        await master.unwrap(Wrapped(wrapped.master_key_id, b""), CONTEXT)


@pytest.mark.parametrize("name", ["vault", "azure-kv"])
async def test_a_new_version_wraps_and_the_old_one_still_opens(name: str, tmp_path: Path) -> None:
    with place(name, tmp_path) as found:
        master = open_master(found.address)
        old = await master.wrap(KEY, CONTEXT)
        found.rotate()
        new = await master.wrap(KEY, CONTEXT)
        assert old.master_key_id != new.master_key_id == await master.key_id()
        for wrapped in (old, new):
            assert await master.owns(wrapped.master_key_id)
            assert await master.unwrap(wrapped, CONTEXT) == KEY


async def test_a_failure_is_tried_again(found: Place) -> None:
    master = open_master(found.address)
    wrapped = await master.wrap(KEY, CONTEXT)
    found.server.faults.fail = 1
    assert await master.unwrap(wrapped, CONTEXT) == KEY
    assert found.server.faults.fail == 0


@pytest.mark.parametrize(
    ("fault", "kind"), [({"fail": 99}, KeyringUnavailable), ({"deny": True}, KeyringDenied)], ids=["fails", "denies"]
)
async def test_a_failure_says_what_it_is_and_nothing_else(
    found: Place, fault: dict[str, object], kind: type[DomainError]
) -> None:
    master = open_master(found.address)
    wrapped = await master.wrap(KEY, CONTEXT)
    for name, value in fault.items():
        setattr(found.server.faults, name, value)
    with structlog.testing.capture_logs() as logs, pytest.raises(kind) as refused:
        await master.unwrap(wrapped, CONTEXT)
    assert refused.value.__cause__ is None
    assert refused.value.__context__ is None or refused.value.__suppress_context__
    told = f"{refused.value!r} {refused.value.metadata} {logs}"
    secret = [KEY.decode(), found.environ.get("VAULT_TOKEN", "a-token-of-azure"), "Authorization", "permission denied"]
    assert not any(each in told for each in secret)
    assert refused.value.metadata["backend"] == master.backend


@pytest.mark.usefixtures("impatient")
async def test_a_slow_place_is_given_up(found: Place) -> None:
    master = open_master(found.address)
    wrapped = await master.wrap(KEY, CONTEXT)
    found.server.faults.delay = 1.5
    began = time.monotonic()
    with pytest.raises(KeyringUnavailable):
        await master.unwrap(wrapped, CONTEXT)
    assert time.monotonic() - began < 10


async def test_a_place_that_is_gone_is_said(found: Place) -> None:
    master = open_master(found.address)
    wrapped = await master.wrap(KEY, CONTEXT)
    found.server.stop()
    for master_again in (master, open_master(found.address)):
        with pytest.raises(KeyringUnavailable):
            await master_again.unwrap(wrapped, CONTEXT)


async def test_azure_opens_nothing_that_it_did_not_sign(in_azure: Place) -> None:
    """Everybody who has the public half can wrap with it."""
    master = open_master(in_azure.address)
    theirs = await master.wrap(KEY, CONTEXT)
    key = next(iter(in_azure.app.versions.values()))
    planted = key.public_key().encrypt(b"p" * 32, fake_azure.OAEP)
    signature = theirs.ciphertext[len(theirs.ciphertext) // 2 :]
    for ciphertext in (planted + signature, planted + bytes(256), planted):
        with pytest.raises(KeyringMismatch):
            await master.unwrap(Wrapped(theirs.master_key_id, ciphertext), CONTEXT)


async def test_azure_refuses_a_version_that_is_gone(in_azure: Place) -> None:
    master = open_master(in_azure.address)
    wrapped = await master.wrap(KEY, CONTEXT)
    in_azure.app.versions.clear()
    in_azure.rotate()
    with pytest.raises(KeyringDenied):
        await open_master(in_azure.address).unwrap(wrapped, CONTEXT)


async def test_vault_keys_have_to_be_derived(in_vault: Place) -> None:
    in_vault.app.derived = False
    with pytest.raises(KeyringUnusable, match="derived=true"):
        await prove(open_master(in_vault.address))


async def test_vaults_token_is_read_anew_from_its_file(
    in_vault: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = in_vault.app
    assert isinstance(app, FakeVault)
    monkeypatch.setenv("VAULT_TOKEN_FILE", str(tmp_path / "token"))
    master = open_master(in_vault.address)
    with pytest.raises(KeyringDenied):
        await prove(master)
    (tmp_path / "token").write_text(f"{app.token}\n")
    await prove(master)
    app.token = "hvs.another"
    (tmp_path / "token").write_text("hvs.another")
    await prove(master)


async def test_aws_follows_no_ciphertext_to_another_key(in_aws: Place) -> None:
    """Whoever writes to the database may put in what their own key has wrapped."""
    ours = open_master(in_aws.address)
    theirs = open_master(f"aws-kms://{kms_key(in_aws)}?region={REGION}")
    planted = await theirs.wrap(KEY, CONTEXT)
    with pytest.raises((KeyringMismatch, KeyringDenied)):
        await ours.unwrap(planted, CONTEXT)
    assert not await ours.owns(planted.master_key_id)


async def test_an_alias_of_aws_stands_for_its_key(in_aws: Place) -> None:
    first = kms_key(in_aws, "alias/orginabox")
    master = open_master(f"aws-kms://alias/orginabox?region={REGION}")
    wrapped = await master.wrap(KEY, CONTEXT)
    assert wrapped.master_key_id == first
    second = kms_key(in_aws, "alias/orginabox")
    later = open_master(f"aws-kms://alias/orginabox?region={REGION}")
    assert await later.key_id() == second
    assert not await later.owns(first)
    previous = open_master(f"aws-kms://{first}?region={REGION}")
    assert await previous.owns(first)
    assert await previous.unwrap(wrapped, CONTEXT) == KEY


async def test_aws_without_credentials_is_said(in_aws: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    master: MasterKey = open_master(in_aws.address)
    with pytest.raises(KeyringDenied):
        await master.wrap(KEY, CONTEXT)
