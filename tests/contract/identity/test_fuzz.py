"""Any request to any method ends in an answer or a refusal: no fault of ours, and no word of the database."""

import random
import string
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message

from services.identity.room import SERVICES
from tests.contract.identity.rig import Rig, bearer

ROUNDS = 12
TEXTS = (
    "",
    "ada",
    "operator",
    "owner",
    "*",
    "agents.run",
    "' OR 1=1 --",
    "\x00",
    "%(x)s {} $1",
    "\u202e\U0001f600",
    "a" * 70,
    "00000000-0000-7000-8000-000000000001",
    "00000000-0000-7000-8000-000000000002",
    "../../etc/passwd",
    "the moon was late",
)
LEAKS = ("psycopg", "SELECT", "INSERT", "Traceback", "identity.", "constraint", "/work", "argon2")


def methods() -> list[MethodDescriptor]:
    pool = descriptor_pool.Default()
    return [method for name in SERVICES for method in pool.FindServiceByName(name).methods]


def any_text(dice: random.Random) -> str:
    if dice.random() < 0.8:
        return dice.choice(TEXTS)
    return "".join(dice.choice(string.printable) for _ in range(dice.randrange(60)))


def any_value(field: Any, dice: random.Random) -> Any:
    match field.type:
        case FieldDescriptor.TYPE_STRING:
            return any_text(dice)
        case FieldDescriptor.TYPE_BYTES:
            return any_text(dice).encode()
        case FieldDescriptor.TYPE_BOOL:
            return dice.random() < 0.5
        case FieldDescriptor.TYPE_ENUM:
            return dice.choice([0, 1, 2, 3, 77])
        case FieldDescriptor.TYPE_DOUBLE:
            return dice.choice([0.0, -1.0, 1e300, float("inf"), float("nan"), 5.5])
        case _:
            return dice.choice([0, 1, 7, 2**31 - 1])


def fill(message: Message, dice: random.Random) -> Message:
    for field in message.DESCRIPTOR.fields:
        if dice.random() < 0.3:
            continue
        if field.message_type is not None:
            there = getattr(message, field.name)
            for _ in range(dice.randrange(3) if field.is_repeated else 1):
                fill(there.add() if field.is_repeated else there, dice)
        elif field.is_repeated:
            getattr(message, field.name).extend(any_value(field, dice) for _ in range(dice.randrange(3)))
        else:
            setattr(message, field.name, any_value(field, dice))
    return message


@pytest.mark.parametrize("method", methods(), ids=lambda method: method.full_name.removeprefix("orginabox.api.v1."))
async def test_no_request_makes_a_fault(rig: Rig, method: MethodDescriptor) -> None:
    dice = random.Random(method.full_name)
    await rig.add("ada", "owner")
    ada = bearer((await rig.sign_in("ada")).access_token)
    request_type = message_factory.GetMessageClass(method.input_type)
    call = rig.channel.unary_unary(
        f"/{method.containing_service.full_name}/{method.name}",
        request_serializer=request_type.SerializeToString,
        response_deserializer=message_factory.GetMessageClass(method.output_type).FromString,
    )
    for number in range(ROUNDS):
        request = fill(request_type(), dice)
        code, told = await answered(call(request, metadata=rig.operator if number % 2 else ada))
        assert code not in {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN}, (request, told)
        assert not [leak for leak in LEAKS if leak in told], told


async def answered(call: Any) -> tuple[grpc.StatusCode, str]:
    """How a call ended, and what was said of it."""
    try:
        await call
    except grpc.aio.AioRpcError as refusal:
        return refusal.code(), refusal.details() or ""
    return grpc.StatusCode.OK, ""
