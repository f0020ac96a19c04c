"""What the keyring refuses, and why it may not start. No message holds anything of a key or a secret."""

from services.kit.errors import DomainError, Kind


class KeyringMismatch(DomainError):
    """A sealed secret cannot be read with the keys at hand."""

    kind = Kind.FAILED_PRECONDITION
    reason = "KEYRING_MISMATCH"


class KeyringUnavailable(DomainError):
    """The service that holds the master key does not answer. What is in memory can still be used."""

    kind = Kind.UNAVAILABLE
    reason = "KEYRING_UNAVAILABLE"


class KeyringDenied(DomainError):
    """The service that holds the master key refuses to use it for us."""

    kind = Kind.FAILED_PRECONDITION
    reason = "KEYRING_DENIED"


class KeyringUnusable(Exception):
    """The keyring cannot be opened as things are; the message says what to do."""


class MasterKeyMissing(KeyringUnusable):
    """There is no master key where it is looked for."""
