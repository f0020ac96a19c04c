"""What Envoy says when it refuses by itself: the same shape, reasons and domain as every refusal of the services."""

from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from google.rpc import code_pb2

DOMAIN = "orginabox.dev"
ENVOY_SAYS = "%LOCAL_REPLY_BODY%"
CANNOT_BE_READ = f"the request cannot be read: {ENVOY_SAYS}"
# What the client speaks, remembered by the edge's first filter. It is asked only here: later the transcoder has made
# gRPC of everything.
SPEAKS_GRPC = {
    "metadata_filter": {
        "matcher": {
            "filter": "orginabox",
            "path": [{"key": "wire"}],
            "value": {"string_match": {"prefix": "application/grpc"}},
        },
        "match_if_key_not_found": False,
    },
}


@dataclass(frozen=True)
class Refusal:
    """What to say for an HTTP status that Envoy made."""

    status: HTTPStatus
    code: code_pb2.Code
    reason: str
    message: str


REFUSALS = (
    Refusal(HTTPStatus.BAD_REQUEST, code_pb2.INVALID_ARGUMENT, "INVALID_ARGUMENT", CANNOT_BE_READ),
    Refusal(
        HTTPStatus.UNAUTHORIZED,
        code_pb2.UNAUTHENTICATED,
        "UNAUTHENTICATED",
        "the request carries no valid credential",
    ),
    Refusal(HTTPStatus.FORBIDDEN, code_pb2.PERMISSION_DENIED, "PERMISSION_DENIED", "the request is not permitted"),
    Refusal(
        HTTPStatus.NOT_FOUND,
        code_pb2.NOT_FOUND,
        "PATH_NOT_FOUND",
        "no method answers to %REQ(:METHOD)% on this path; the reference lists them all",
    ),
    Refusal(
        HTTPStatus.METHOD_NOT_ALLOWED,
        code_pb2.NOT_FOUND,
        "PATH_NOT_FOUND",
        "no method answers to %REQ(:METHOD)% on this path; the reference lists them all",
    ),
    Refusal(
        HTTPStatus.REQUEST_TIMEOUT,
        code_pb2.DEADLINE_EXCEEDED,
        "DEADLINE_EXCEEDED",
        "the request did not arrive in time",
    ),
    Refusal(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        code_pb2.RESOURCE_EXHAUSTED,
        "REQUEST_TOO_LARGE",
        "the request is larger than 1 MiB",
    ),
    Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, code_pb2.INVALID_ARGUMENT, "INVALID_ARGUMENT", CANNOT_BE_READ),
    Refusal(
        HTTPStatus.TOO_MANY_REQUESTS,
        code_pb2.RESOURCE_EXHAUSTED,
        "RATE_LIMITED",
        "too many requests at once; wait a second, then try again",
    ),
    Refusal(
        HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
        code_pb2.RESOURCE_EXHAUSTED,
        "REQUEST_TOO_LARGE",
        "the headers of the request are larger than 32 KiB or more than 64",
    ),
    Refusal(HTTPStatus.INTERNAL_SERVER_ERROR, code_pb2.INTERNAL, "INTERNAL", "something went wrong inside of the box"),
    Refusal(
        HTTPStatus.BAD_GATEWAY,
        code_pb2.UNAVAILABLE,
        "SERVICE_UNAVAILABLE",
        "a part of the box broke off its answer; try again",
    ),
    Refusal(
        HTTPStatus.SERVICE_UNAVAILABLE,
        code_pb2.UNAVAILABLE,
        "SERVICE_UNAVAILABLE",
        "a part of the box cannot be reached just now; try again",
    ),
    Refusal(
        HTTPStatus.GATEWAY_TIMEOUT,
        code_pb2.DEADLINE_EXCEEDED,
        "DEADLINE_EXCEEDED",
        "the answer did not come in time",
    ),
)

# What the model door says; the agent's model library shows it to the user.
MODEL_MESSAGES = {
    HTTPStatus.BAD_REQUEST: "this is not a request that can be sent on",
    HTTPStatus.NOT_FOUND: "this path belongs to no provider",
    HTTPStatus.FORBIDDEN: "this call was not permitted",
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: "the headers are larger than 32 KiB",
    HTTPStatus.BAD_GATEWAY: "the provider broke off its answer",
    HTTPStatus.SERVICE_UNAVAILABLE: "the provider cannot be reached",
    # What Envoy says when a request was too large to be kept for a second try.
    HTTPStatus.INSUFFICIENT_STORAGE: "the provider cannot be reached",
    HTTPStatus.GATEWAY_TIMEOUT: "the provider did not answer in time",
}


def edge_mappers() -> list[dict[str, Any]]:
    """The edge's refusals for Envoy: gRPC clients, first, get code and sentence in their own way."""
    return [
        *(_grpc_mapper(refusal) for refusal in REFUSALS),
        # What has no sentence of ours.
        {"filter": SPEAKS_GRPC, "body_format_override": _text(ENVOY_SAYS)},
        *(_mapper(refusal.status, _status_body(refusal)) for refusal in REFUSALS),
    ]


def model_mappers() -> list[dict[str, Any]]:
    """The model door's refusals for Envoy."""
    return [_mapper(status, _model_body(status, message)) for status, message in MODEL_MESSAGES.items()]


def _grpc_mapper(refusal: Refusal) -> dict[str, Any]:
    # What has no path in HTTP has no method in gRPC, and its clients know that by a code of its own.
    code = code_pb2.UNIMPLEMENTED if refusal.reason == "PATH_NOT_FOUND" else refusal.code
    return {
        "filter": {"and_filter": {"filters": [SPEAKS_GRPC, _has_status(refusal.status)]}},
        "body_format_override": _text(refusal.message),
        "headers_to_add": [
            {
                "header": {"key": "grpc-status", "value": str(int(code))},
                "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
            }
        ],
    }


def _mapper(status: HTTPStatus, body: dict[str, Any]) -> dict[str, Any]:
    return {
        "filter": _has_status(status),
        "body_format_override": {"json_format": body, "content_type": "application/json"},
    }


def _has_status(status: HTTPStatus) -> dict[str, Any]:
    value = {"default_value": int(status), "runtime_key": "orginabox.none"}
    return {"status_code_filter": {"comparison": {"op": "EQ", "value": value}}}


def _text(message: str) -> dict[str, Any]:
    return {"text_format_source": {"inline_string": message}}


def _status_body(refusal: Refusal) -> dict[str, Any]:
    info = {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": f"ERROR_REASON_{refusal.reason}",
        "domain": DOMAIN,
    }
    return {"code": int(refusal.code), "message": refusal.message, "details": [info]}


def _model_body(status: HTTPStatus, message: str) -> dict[str, Any]:
    return {"error": {"message": f"Org in a Box: {message}", "type": "orginabox_error", "code": str(int(status))}}
