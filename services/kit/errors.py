"""What a service may refuse, said without a word of the wire."""

from enum import Enum
from typing import ClassVar


class Kind(Enum):
    """The kind of a refusal; each is one canonical gRPC code."""

    INVALID_ARGUMENT = "invalid argument"
    UNAUTHENTICATED = "unauthenticated"
    PERMISSION_DENIED = "permission denied"
    NOT_FOUND = "not found"
    ALREADY_EXISTS = "already exists"
    FAILED_PRECONDITION = "failed precondition"
    ABORTED = "aborted"
    OUT_OF_RANGE = "out of range"
    RESOURCE_EXHAUSTED = "resource exhausted"
    UNAVAILABLE = "unavailable"
    DEADLINE_EXCEEDED = "deadline exceeded"
    INTERNAL = "internal"


class DomainError(Exception):
    """A refusal: a sentence for people, a reason for programs, and the values that the sentence speaks of.

    A subclass is one reason. Its `reason` is a name of the contract's ErrorReason without the prefix, and its `kind`
    the canonical code. The metadata's names are lowerCamel, as they appear on the wire.
    """

    kind: ClassVar[Kind] = Kind.INTERNAL
    reason: ClassVar[str] = "INTERNAL"

    def __init__(self, message: str, **metadata: object) -> None:
        super().__init__(message)
        self.message = message
        self.metadata = {name: str(value) for name, value in metadata.items()}


class PageTokenInvalid(DomainError):
    """The page token belongs to another list or filter."""

    kind = Kind.INVALID_ARGUMENT
    reason = "PAGE_TOKEN_INVALID"


class RequestIdReused(DomainError):
    """The request id stands for a request with other content."""

    kind = Kind.ALREADY_EXISTS
    reason = "REQUEST_ID_REUSED"


class TextInvalid(DomainError):
    """A text holds what no text may."""

    kind = Kind.INVALID_ARGUMENT
    reason = "INVALID_ARGUMENT"


class ServiceUnavailable(DomainError):
    """A part of the mesh cannot be reached."""

    kind = Kind.UNAVAILABLE
    reason = "SERVICE_UNAVAILABLE"


class Unauthenticated(DomainError):
    """The credential is missing or wrong."""

    kind = Kind.UNAUTHENTICATED
    reason = "UNAUTHENTICATED"


class PermissionDenied(DomainError):
    """The caller may not do this."""

    kind = Kind.PERMISSION_DENIED
    reason = "PERMISSION_DENIED"
