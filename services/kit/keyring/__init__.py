"""The keyring: secrets in the database are sealed with keys that are in it only wrapped by a key that is not.

A master key, in one of several places, wraps data keys, one active for each tenant; a data key seals secrets, each
bound to its record. A room opens its keyring with `open_keyring`, and operates it by `KeyringAdmin`.
"""

from services.kit.keyring.data_key import INSTALLATION
from services.kit.keyring.errors import KeyringDenied, KeyringMismatch, KeyringUnavailable, KeyringUnusable
from services.kit.keyring.keyring import DerivedKey, Keyring

__all__ = [
    "INSTALLATION",
    "DerivedKey",
    "Keyring",
    "KeyringDenied",
    "KeyringMismatch",
    "KeyringUnavailable",
    "KeyringUnusable",
]
