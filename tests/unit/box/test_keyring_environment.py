"""Credentials of a cloud reach a process only where the master key is there."""

from services.box.keyring_environment import keyring_environment

FOUND = {
    "AWS_SECRET_ACCESS_KEY": "a",
    "AZURE_CLIENT_SECRET": "b",
    "HTTPS_PROXY": "d",
    "OPENAI_API_KEY": "e",
    "VAULT_TOKEN": "c",
}


def test_a_file_needs_nothing() -> None:
    assert keyring_environment(FOUND) == {}
    assert keyring_environment(FOUND | {"OIAB_KEYRING": "file:///etc/keyring"}) == {}


def test_a_place_gets_its_own_and_the_network() -> None:
    assert set(keyring_environment(FOUND | {"OIAB_KEYRING": "vault://h/transit/k"})) == {"VAULT_TOKEN", "HTTPS_PROXY"}


def test_the_place_from_before_gets_its_own_too() -> None:
    both = {"OIAB_KEYRING": "azure-kv://v/k", "OIAB_KEYRING_PREVIOUS": "aws-kms://k"}
    assert set(keyring_environment(FOUND | both)) == {"AZURE_CLIENT_SECRET", "AWS_SECRET_ACCESS_KEY", "HTTPS_PROXY"}
