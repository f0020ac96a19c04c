"""What a call may raise: one class for each canonical code, with what the box said of it."""

from collections.abc import Mapping

import grpc
from google.rpc import error_details_pb2, status_pb2

_PREFIX = "ERROR_REASON_"
_OF_THE_WAY = frozenset(
    {
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.UNKNOWN,
    }
)
_PASSING = frozenset({"SERVICE_UNAVAILABLE", "RATE_LIMITED", "DEADLINE_EXCEEDED"})


class ApiError(Exception):
    """A call was refused, or did not reach the box.

    Attributes:
        code: The canonical code.
        message: What happened and what to do, for people.
        reason: A name of the contract's ErrorReason without its prefix, such as `TURN_NOT_FOUND`. Empty when the error
            came from the way to the box and not from the box.
        metadata: The values that the message speaks of, such as `turnId`.

    Example:
        ```python
        try:
            await client.sessions.get_session(GetSessionRequest(session_id=session_id))
        except NotFound as error:
            print(error.message, error.reason, error.metadata["sessionId"])
        ```
    """

    def __init__(
        self, code: grpc.StatusCode, message: str, reason: str = "", metadata: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.reason = reason
        self.metadata = dict(metadata or {})

    @property
    def passing(self) -> bool:
        """Whether the same call may work in a moment."""
        return self.reason in _PASSING if self.reason else self.code in _OF_THE_WAY


class InvalidArgument(ApiError):
    """The request breaks a rule of the contract."""


class Unauthenticated(ApiError):
    """The key is missing or wrong."""


class PermissionDenied(ApiError):
    """The caller may not do this."""


class NotFound(ApiError):
    """There is no such thing, or it is somebody else's."""


class AlreadyExists(ApiError):
    """There is one already."""


class FailedPrecondition(ApiError):
    """Not in the state that things are in."""


class ResourceExhausted(ApiError):
    """Too much, or too many."""


class Aborted(ApiError):
    """Somebody else was first."""


class Unavailable(ApiError):
    """The box, or a part of it, cannot be reached."""


class DeadlineExceeded(ApiError):
    """The call did not end in time."""


_BY_CODE: Mapping[grpc.StatusCode, type[ApiError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgument,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExists,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPrecondition,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhausted,
    grpc.StatusCode.ABORTED: Aborted,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
}


def api_error(error: grpc.aio.AioRpcError) -> ApiError:
    """The error as the box meant it."""
    info = _error_info(error)
    kind = _BY_CODE.get(error.code(), ApiError)
    message = error.details() or error.code().name.lower()
    return kind(error.code(), message, info.reason.removeprefix(_PREFIX), info.metadata)


def _error_info(error: grpc.aio.AioRpcError) -> error_details_pb2.ErrorInfo:
    """The ErrorInfo among the details of an error, or an empty one."""
    info = error_details_pb2.ErrorInfo()
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            status = status_pb2.Status.FromString(value)
            any(detail.Unpack(info) for detail in status.details)
    return info
