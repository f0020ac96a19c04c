"""Refusals to a directory, as SCIM has them (RFC 7644, section 3.12)."""

import json
from typing import Any

from pydantic import ValidationError
from scim2_models import Error, SCIMException
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from services.identity.web.refusals import STATUSES, RequestTooLarge
from services.kit import telemetry
from services.kit.errors import DomainError, Kind

MEDIA_TYPE = "application/scim+json"
UNAUTHORIZED = 401
_TYPES = {Kind.ALREADY_EXISTS: "uniqueness", Kind.INVALID_ARGUMENT: "invalidValue"}


def scim_json(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """An answer."""
    return Response(json.dumps(body), status, headers, MEDIA_TYPE)


def _error(status: int, detail: str, scim_type: str = "") -> Response:
    body = Error(status=status, detail=detail, scim_type=scim_type or None).model_dump()
    headers = {"www-authenticate": "Bearer"} if status == UNAUTHORIZED else {}
    return scim_json(body, status, headers)


async def on_scim(_: Request, error: Exception) -> Response:
    """Answer what the library refuses."""
    assert isinstance(error, SCIMException)  # noqa: S101 - it is registered for these
    return _error(error.status, str(error), error.scim_type)


async def on_invalid(_: Request, error: Exception) -> Response:
    """Answer what cannot be read."""
    assert isinstance(error, ValidationError)  # noqa: S101 - the same
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    kind = str(first["type"])
    where = ".".join(str(part) for part in first["loc"])
    scim_type = kind.removeprefix("scim_") if kind.startswith("scim_") and kind != "scim_error" else "invalidValue"
    return _error(400, f"{where}: {first['msg']}" if where else first["msg"], scim_type)


async def on_refusal(_: Request, error: Exception) -> Response:
    """Answer a refusal of ours."""
    assert isinstance(error, DomainError)  # noqa: S101 - the same
    status = 413 if isinstance(error, RequestTooLarge) else int(STATUSES[error.kind])
    return _error(status, error.message, _TYPES.get(error.kind, ""))


async def on_http(_: Request, error: Exception) -> Response:
    """Answer what the framework refuses."""
    assert isinstance(error, HTTPException)  # noqa: S101 - the same
    details = {403: "this cannot be filtered", 404: "there is no such resource", 405: "this cannot be done here"}
    return _error(error.status_code, details.get(error.status_code, "the request cannot be read"))


async def on_fault(request: Request, error: Exception) -> Response:
    """Answer a fault of ours: nothing of it leaves."""
    telemetry.log().error("SCIM failed", path=request.url.path, exc_info=error)
    return _error(500, "something went wrong on our side")
