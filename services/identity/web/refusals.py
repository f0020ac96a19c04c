"""Refusals to browsers, as a page, and to programs, as the same JSON as everywhere."""

from http import HTTPStatus

from google.protobuf.json_format import MessageToDict
from google.rpc import status_pb2
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from services.identity.web.door import LOGIN
from services.identity.web.pages import page
from services.kit import telemetry
from services.kit.errors import DomainError, Kind
from services.kit.status import fault_to_status, refusal_to_status

STATUSES = {
    Kind.INVALID_ARGUMENT: HTTPStatus.BAD_REQUEST,
    Kind.UNAUTHENTICATED: HTTPStatus.UNAUTHORIZED,
    Kind.PERMISSION_DENIED: HTTPStatus.FORBIDDEN,
    Kind.NOT_FOUND: HTTPStatus.NOT_FOUND,
    Kind.ALREADY_EXISTS: HTTPStatus.CONFLICT,
    Kind.FAILED_PRECONDITION: HTTPStatus.BAD_REQUEST,
    Kind.ABORTED: HTTPStatus.CONFLICT,
    Kind.OUT_OF_RANGE: HTTPStatus.BAD_REQUEST,
    Kind.RESOURCE_EXHAUSTED: HTTPStatus.TOO_MANY_REQUESTS,
    Kind.UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
    Kind.DEADLINE_EXCEEDED: HTTPStatus.GATEWAY_TIMEOUT,
    Kind.INTERNAL: HTTPStatus.INTERNAL_SERVER_ERROR,
}


class PathNotFound(DomainError):
    """No page answers to this."""

    kind = Kind.NOT_FOUND
    reason = "PATH_NOT_FOUND"


class RequestInvalid(DomainError):
    """The request cannot be read."""

    kind = Kind.INVALID_ARGUMENT
    reason = "INVALID_ARGUMENT"


class RequestTooLarge(DomainError):
    """The request is larger than a form is."""

    kind = Kind.RESOURCE_EXHAUSTED
    reason = "REQUEST_TOO_LARGE"


async def on_refusal(request: Request, error: Exception) -> Response:
    """Answer a refusal."""
    assert isinstance(error, DomainError)  # noqa: S101 - it is registered for these
    status = STATUSES[error.kind] if not isinstance(error, RequestTooLarge) else HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    answer = _answer(request, status, refusal_to_status(error), error.message)
    if seconds := error.metadata.get("retryAfterSeconds"):
        answer.headers["retry-after"] = seconds
    return answer


async def on_http(request: Request, error: Exception) -> Response:
    """Answer what the framework refuses."""
    assert isinstance(error, HTTPException)  # noqa: S101 - it is registered for these
    found = {HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED}
    if error.status_code in found:
        return await on_refusal(request, PathNotFound("there is no such page"))
    return await on_refusal(request, RequestInvalid("the request cannot be read"))


async def on_fault(request: Request, error: Exception) -> Response:
    """Answer a fault of ours: nothing of it leaves."""
    telemetry.log().error("a page failed", path=request.url.path, exc_info=error)
    status = fault_to_status()
    return _answer(request, HTTPStatus.INTERNAL_SERVER_ERROR, status, "Something went wrong on our side.")


def _answer(request: Request, code: int, status: status_pb2.Status, sentence: str) -> Response:
    if "text/html" in request.headers.get("accept", ""):
        return page("refused", code, sentence=sentence[:1].upper() + sentence[1:], login=LOGIN)
    return JSONResponse(MessageToDict(status), code)
