"""Refusals on the wire: a canonical code, a sentence, and exactly one ErrorInfo (AIP-193)."""

from typing import Any

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status
from orginabox.errors.v1 import error_reason_pb2
from protovalidate import Violation

from services.kit import telemetry
from services.kit.errors import DomainError, Kind

DOMAIN = "orginabox.dev"
PREFIX = "ERROR_REASON_"

CODES = {kind: grpc.StatusCode[kind.name] for kind in Kind}


def refusal_to_status(error: DomainError) -> status_pb2.Status:
    """The status of a refusal."""
    return make_status(CODES[error.kind], error.message, error.reason, error.metadata)


def violations_to_status(violations: list[Violation]) -> status_pb2.Status:
    """The status of a request that breaks rules of the contract: the first in words, all of them as BadRequest."""
    fields = [
        error_details_pb2.BadRequest.FieldViolation(
            field=".".join(element.field_name for element in violation.proto.field.elements)
            if violation.proto.field
            else "",
            description=violation.proto.message or "is not valid",
            reason=violation.proto.rule_id,
        )
        for violation in violations
    ]
    first = fields[0]
    return make_status(
        grpc.StatusCode.INVALID_ARGUMENT,
        f"{first.field or 'the request'}: {first.description}",
        "INVALID_ARGUMENT",
        {"field": first.field},
        error_details_pb2.BadRequest(field_violations=fields),
    )


def fault_to_status() -> status_pb2.Status:
    """The status of a fault of ours: nothing of it leaves but the id that finds it in the logs."""
    found = telemetry.trace_id()
    return make_status(
        grpc.StatusCode.INTERNAL,
        f"something went wrong on our side; the logs tell more under trace {found}",
        "INTERNAL",
        {"traceId": found},
    )


def remote_to_status(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    """The status of a call that another service refused: its own refusal if it is one of the mesh, else a fault."""
    told = refusal_of(error)
    if told:
        return told
    if error.code() is grpc.StatusCode.UNAVAILABLE:
        return make_status(
            error.code(),
            "a part of the box cannot be reached just now; try again in a moment",
            "SERVICE_UNAVAILABLE",
            {"service": "mesh"},
        )
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return make_status(error.code(), "the call did not end in time; try again", "DEADLINE_EXCEEDED", {})
    return fault_to_status()


def refusal_of(error: grpc.aio.AioRpcError) -> status_pb2.Status | None:
    """The status that a service of the mesh sent with an error, or None when the error came from elsewhere."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            status = status_pb2.Status.FromString(value if isinstance(value, bytes) else value.encode())
            if any(detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR) for detail in status.details):
                return status
    return None


def reason_of(error: grpc.aio.AioRpcError) -> str:
    """The reason of a refusal without the prefix, such as `TURN_NOT_FOUND`. Empty for an error from elsewhere."""
    status = refusal_of(error)
    for detail in status.details if status else ():
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            return str(info.reason).removeprefix(PREFIX)
    return ""


def make_status(
    code: grpc.StatusCode, message: str, reason: str, metadata: dict[str, str], *details: Message
) -> status_pb2.Status:
    """A status with one ErrorInfo, and further details after it."""
    name = PREFIX + reason
    error_reason_pb2.ErrorReason.Value(name)  # a reason that the contract does not know is a fault of ours
    status = status_pb2.Status(code=code.value[0], message=message)
    for detail in (error_details_pb2.ErrorInfo(reason=name, domain=DOMAIN, metadata=metadata), *details):
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status


async def abort(context: grpc.aio.ServicerContext[Any, Any], status: status_pb2.Status) -> None:
    """End the call with the status."""
    await context.abort_with_status(rpc_status.to_status(status))
