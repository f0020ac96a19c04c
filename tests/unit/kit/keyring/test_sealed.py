"""The stored form: what is changed, moved or downgraded does not open."""

import base64

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from services.kit.keyring import KeyringMismatch
from services.kit.keyring.sealed import Sealed

KEY = b"k" * 32
KEY_ID = "k0123456789abcdef"
SECRET = "sk-a-secret"
RECORD = "provider:t:acme"


def sealed() -> str:
    return str(Sealed.seal(KEY, KEY_ID, SECRET, RECORD))


def opened(text: str, record: str = RECORD, key: bytes = KEY) -> str:
    return Sealed.parse(text).open(key, record)


def imported(key: bytes = KEY) -> str:
    """A secret as the original product stored it: 12 bytes of IV, the tag, the ciphertext, and no record."""
    iv = b"i" * 12
    made = AESGCM(key).encrypt(iv, SECRET.encode(), None)
    return ":".join(("v1", *(base64.b64encode(part).decode() for part in (iv, made[-16:], made[:-16]))))


def test_a_secret_comes_back_and_is_never_sealed_alike_twice() -> None:
    assert opened(sealed()) == SECRET
    assert sealed() != sealed()
    assert SECRET not in sealed()
    assert SECRET not in repr(Sealed.parse(sealed()))


def test_the_form_names_version_and_key() -> None:
    version, key_id, *parts = sealed().split(":")
    assert (version, key_id) == ("v2", KEY_ID)
    assert [len(base64.b64decode(part)) for part in parts] == [12, 16, len(SECRET)]


def test_the_form_of_the_original_product_is_read() -> None:
    assert opened(imported(), record="whatever") == SECRET


@given(place=st.integers(min_value=0, max_value=12 + 16 + len(SECRET) - 1), bit=st.integers(min_value=0, max_value=7))
def test_every_flipped_bit_is_noticed(place: int, bit: int) -> None:
    version, key_id, *parts = sealed().split(":")
    raw = [bytearray(base64.b64decode(part)) for part in parts]
    index = 0
    while place >= len(raw[index]):
        place -= len(raw[index])
        index += 1
    raw[index][place] ^= 1 << bit
    changed = ":".join((version, key_id, *(base64.b64encode(part).decode() for part in raw)))
    with pytest.raises(KeyringMismatch) as refused:
        opened(changed)
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__


def test_every_character_is_noticed() -> None:
    text = sealed()
    for place in range(len(text)):
        if text[place] in "=:" or place < 2 + 1 + len(KEY_ID):
            continue
        other = "A" if text[place] != "A" else "Q"
        changed = text[:place] + other + text[place + 1 :]
        if (
            base64.b64decode(changed.split(":")[-1]) == base64.b64decode(text.split(":")[-1])
            and changed.split(":")[:-1] == text.split(":")[:-1]
        ):
            continue  # spare bits of the last character mean nothing
        with pytest.raises(KeyringMismatch):
            opened(changed)


def test_a_secret_opens_in_no_other_record_and_with_no_other_key() -> None:
    with pytest.raises(KeyringMismatch):
        opened(sealed(), record="provider:t:other")
    with pytest.raises(KeyringMismatch):
        opened(sealed(), key=b"K" * 32)


def test_a_form_is_not_rewritten_as_the_other() -> None:
    _, _, *parts = sealed().split(":")
    with pytest.raises(KeyringMismatch):
        opened(":".join(("v1", *parts)))
    _, *parts = imported().split(":")
    with pytest.raises(KeyringMismatch):
        opened(":".join(("v2", KEY_ID, *parts)))


@pytest.mark.parametrize(
    "text",
    ["", "v2", "v2:a", "v1:a:b:c", "v3:a:b:c:d", "nonsense", "v2:1:2:3:4:5:6", "v2:k:YQ==:YQ==:YQ==", "v1:::"],
)
def test_what_was_never_sealed_is_refused(text: str) -> None:
    with pytest.raises(KeyringMismatch) as refused:
        opened(text)
    assert not text or text not in refused.value.message
