"""Whatever is sent to whichever method: never a fault of ours, never a word of our insides."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any, cast

import grpc
import hypothesis
import pytest
import schemathesis
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2
from orginabox.errors.v1 import error_reason_pb2
from schemathesis.core.result import Ok

from services.kit.status import refusal_of
from tests.architecture.test_contract import all_methods
from tests.docs.test_openapi import DOCUMENT
from tests.e2e.fuzz.messages import Dice
from tests.e2e.mesh import Box, box
from tests.e2e.test_bad_input import INSIDES

ROUNDS = 15
QUIETLY = hypothesis.settings(
    max_examples=8, deadline=None, database=None, derandomize=True, suppress_health_check=list(hypothesis.HealthCheck)
)
FAULTS = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS, grpc.StatusCode.UNIMPLEMENTED}
PUBLIC = [method for method in all_methods() if method.full_name.startswith("orginabox.api.v1.")]
INTERNAL = [method for method in all_methods() if not method.full_name.startswith("orginabox.api.v1.")]
OPERATIONS = [
    result.ok() for result in schemathesis.openapi.from_dict(DOCUMENT).get_all_operations() if isinstance(result, Ok)
]


@pytest.fixture(scope="module")
def target() -> Iterator[Box]:
    """A box that may be broken."""
    with box(OIAB_DEMO_MODEL="false", OIAB_RATE_LIMIT="100000") as made:
        yield made


@pytest.mark.parametrize("method", PUBLIC, ids=lambda method: method.full_name)
async def test_random_messages_are_answered_or_refused(target: Box, method: MethodDescriptor) -> None:
    dice = Dice(method.full_name)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{target.port}") as channel:
        for number in range(ROUNDS):
            metadata = target.metadata if number % 5 else ()
            error = await _call(channel, method, dice.message(method.input_type).SerializeToString(), metadata)
            if error is not None:
                _check(error, method)


@pytest.mark.parametrize("method", PUBLIC, ids=lambda method: method.full_name)
async def test_bytes_that_are_no_message_are_refused(target: Box, method: MethodDescriptor) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{target.port}") as channel:
        error = await _call(channel, method, b"\xff\xff\xff\xff\x07" * 20, target.metadata)
    assert error is not None
    assert not any(word in str(error.details()) for word in INSIDES)


@pytest.mark.parametrize("method", INTERNAL, ids=lambda method: method.full_name)
async def test_internal_methods_are_not_there(target: Box, method: MethodDescriptor) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{target.port}") as channel:
        error = await _call(channel, method, b"", target.metadata)
    assert error is not None
    assert error.code() in {grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.NOT_FOUND}


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.label)
def test_rest_answers_or_refuses(target: Box, operation: Any) -> None:
    @hypothesis.given(case=operation.as_strategy() | operation.as_strategy(schemathesis.GenerationMode.NEGATIVE))
    @QUIETLY
    def fuzz(case: Any) -> None:
        answer = case.call(base_url=target.url, headers=target.headers, timeout=20, stream=False)
        text = answer.text
        assert answer.status_code < 500 or _told_why(text), text
        assert not any(word in text for word in INSIDES), text

    fuzz()


def test_the_box_is_well_afterwards(target: Box) -> None:
    with target.http() as http:
        assert http.get("/v1/healthz").is_success
    assert {each["restarts"] for each in target.state()["processes"]} == {0}
    assert "exception" not in target.logs().lower()


def _told_why(text: str) -> bool:
    """Whether a 503 says that somebody else cannot be reached: an identity provider that a random address names."""
    return "IDENTITY_PROVIDER_UNAVAILABLE" in text or "SERVICE_UNAVAILABLE" in text


async def _call(
    channel: grpc.aio.Channel, method: MethodDescriptor, request: bytes, metadata: tuple[tuple[str, str], ...]
) -> grpc.aio.AioRpcError | None:
    """Call a method with these bytes; the error that it ends with, if it does. Streams are read for a moment."""
    path, way = f"/{method.containing_service.full_name}/{method.name}", cast("Any", channel)
    read = GetMessageClass(method.output_type).FromString
    try:
        if method.client_streaming or method.server_streaming:
            call = way.stream_stream(path, response_deserializer=read)(_once(request), metadata=metadata, timeout=2)
            async for _ in call:
                break
            call.cancel()
        else:
            await way.unary_unary(path, response_deserializer=read)(request, metadata=metadata, timeout=20)
    except grpc.aio.AioRpcError as error:
        return error
    except asyncio.CancelledError:
        return None
    return None


async def _once(request: bytes) -> AsyncIterator[bytes]:
    yield request


def _check(error: grpc.aio.AioRpcError, method: MethodDescriptor) -> None:
    """The error is a refusal: a canonical code, one known reason, and nothing of our insides."""
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED and method.server_streaming:
        return
    assert error.code() not in FAULTS, error
    status = refusal_of(error)
    assert status is not None, error
    infos = [detail for detail in status.details if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR)]
    assert len(infos) == 1
    info = error_details_pb2.ErrorInfo()
    infos[0].Unpack(info)
    assert info.reason in error_reason_pb2.ErrorReason.keys()  # noqa: SIM118 - it is no dict
    said = f"{status.message} {info.metadata}"
    assert not any(word in said for word in INSIDES), said
