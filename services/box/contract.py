"""What the edge must know of the public contract, read from its descriptors."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from google.api import annotations_pb2
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
    ServiceDescriptorProto,
)

from services.box.errors import BoxError

DESCRIPTOR_SET = Path(__file__).parents[2] / "gen" / "descriptor.binpb"
PUBLIC_PACKAGE = "orginabox.api.v1"


class ContractMissing(BoxError):
    """The descriptors were not generated."""


@dataclass(frozen=True)
class Body:
    """A method that takes a JSON body."""

    verb: str
    path: str
    """A template, such as `/v1/sessions/{session_id}/prompt`."""
    message: str
    """The message that the body is, by full name."""


@dataclass(frozen=True)
class Contract:
    """What the edge must know of the public contract."""

    services: tuple[str, ...]
    """The services, by full name."""
    event_paths: tuple[str, ...]
    """The HTTP paths that answer with a stream, as templates such as `/v1/turns/{turn_id}/events`."""
    stream_methods: tuple[str, ...]
    """The gRPC paths that answer with a stream."""
    bodies: tuple[Body, ...]
    """The methods that take a JSON body."""
    messages: Mapping[str, Mapping[str, str | bool]]
    """The messages of such bodies: for each field its message, or True where nothing below it is checked."""


def read_contract(descriptor_set: Path = DESCRIPTOR_SET, package: str = PUBLIC_PACKAGE) -> Contract:
    """What the descriptor set says of the public services."""
    if not descriptor_set.exists():
        raise ContractMissing(f"{descriptor_set} is missing; run `make generate`")
    descriptors = FileDescriptorSet.FromString(descriptor_set.read_bytes())
    services = list(_public_services(descriptors, package))
    methods = [(service, method) for service, proto in services for method in proto.method]
    streams = [(service, method) for service, method in methods if method.server_streaming]
    bodies = tuple(body for _, method in methods for body in _bodies(method))
    return Contract(
        services=tuple(service for service, _ in services),
        event_paths=tuple(path for _, method in streams for _, path, _ in _bindings(method)),
        stream_methods=tuple(f"/{service}/{method.name}" for service, method in streams),
        bodies=bodies,
        messages=_messages_below({body.message for body in bodies}, _all_messages(descriptors)),
    )


def _public_services(descriptors: FileDescriptorSet, package: str) -> Iterator[tuple[str, ServiceDescriptorProto]]:
    for file in descriptors.file:
        if file.package == package:
            yield from ((f"{package}.{service.name}", service) for service in file.service)


def _bindings(method: MethodDescriptorProto) -> Iterator[tuple[str, str, str]]:
    """The verb, the path and the body of each HTTP form of a method."""
    rule = method.options.Extensions[annotations_pb2.http]
    for binding in (rule, *rule.additional_bindings):
        verb = binding.WhichOneof("pattern")
        if verb and verb != "custom":
            yield verb.upper(), getattr(binding, verb), binding.body


def _bodies(method: MethodDescriptorProto) -> Iterator[Body]:
    for verb, path, body in _bindings(method):
        if body == "*":
            yield Body(verb, path, method.input_type.removeprefix("."))


def _all_messages(descriptors: FileDescriptorSet) -> dict[str, DescriptorProto]:
    return {f"{file.package}.{message.name}": message for file in descriptors.file for message in file.message_type}


def _messages_below(names: set[str], known: Mapping[str, DescriptorProto]) -> dict[str, dict[str, str | bool]]:
    """The fields of the named messages and of all that stand below them."""
    found: dict[str, dict[str, str | bool]] = {}
    waiting = sorted(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = {json: kind for field in known[name].field for json, kind in _named(field, known)}
            waiting.extend(kind for kind in found[name].values() if isinstance(kind, str))
    return found


def _named(field: FieldDescriptorProto, known: Mapping[str, DescriptorProto]) -> Iterator[tuple[str, str | bool]]:
    """A field by each name that JSON may call it.

    Google's own messages have a JSON of their own, and the entries of a map have any name: they are not checked.
    """
    message = field.type_name.removeprefix(".")
    checked = message in known and message.startswith("orginabox.")
    for name in dict.fromkeys((field.name, field.json_name)):
        yield name, message if checked else True
