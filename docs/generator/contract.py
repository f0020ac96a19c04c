"""The contracts as a reader sees them: services, methods, messages and enums with their comments and rules."""

import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from buf.validate import validate_pb2
from google.api import annotations_pb2, field_behavior_pb2
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
    MethodOptions,
    ServiceDescriptorProto,
)
from orginabox.options.v1 import options_pb2

from docs.generator.rules import is_required, rules_of

PACKAGE = "orginabox."
PUBLIC_PACKAGE = "orginabox.api.v1"

# Where things stand in a file, as `SourceCodeInfo` counts them.
_MESSAGE, _ENUM, _SERVICE = 4, 5, 6
_METHOD, _FIELD, _VALUE = 2, 2, 2
_SYNTAX = (12,)


@dataclass(frozen=True)
class Text:
    """A comment: what it says, and which refusals it names."""

    body: str
    refusals: str = ""
    example: str = ""

    @property
    def first(self) -> str:
        """Its first sentence."""
        return re.split(r"(?<=[.])\s", self.body, maxsplit=1)[0]


@dataclass(frozen=True)
class Field:
    """One field of a message."""

    name: str
    json_name: str
    type_name: str
    repeated: bool
    oneof: str
    text: Text
    rules: Sequence[str]
    required: bool
    output_only: bool
    input_only: bool
    sensitive: bool


@dataclass(frozen=True)
class Message:
    """One message."""

    full_name: str
    text: Text
    fields: Sequence[Field]

    @property
    def name(self) -> str:
        """Its name without the package."""
        return self.full_name.rpartition(".")[2]


@dataclass(frozen=True)
class EnumValue:
    """One value of an enum."""

    name: str
    text: Text


@dataclass(frozen=True)
class Enum:
    """One enum."""

    full_name: str
    text: Text
    values: Sequence[EnumValue]

    @property
    def name(self) -> str:
        """Its name without the package."""
        return self.full_name.rpartition(".")[2]


@dataclass(frozen=True)
class Policy:
    """Who may call a method, and what a call leaves on record."""

    access: str
    permission: str
    audit_action: str
    callers: Sequence[str]


@dataclass(frozen=True)
class Method:
    """One method of a service."""

    service: str
    name: str
    text: Text
    request: str
    response: str
    client_streaming: bool
    server_streaming: bool
    paths: Sequence[str]
    policy: Policy
    idempotency: str

    @property
    def full_name(self) -> str:
        """Its name as gRPC says it."""
        return f"{self.service}/{self.name}"


@dataclass(frozen=True)
class Service:
    """One service."""

    full_name: str
    text: Text
    methods: Sequence[Method]

    @property
    def name(self) -> str:
        """Its name without the package."""
        return self.full_name.rpartition(".")[2]

    @property
    def public(self) -> bool:
        """Whether clients may call it."""
        return self.full_name.startswith(f"{PUBLIC_PACKAGE}.")


@dataclass(frozen=True)
class File:
    """One file of the contracts."""

    path: str
    package: str
    text: Text
    services: Sequence[Service]
    messages: Sequence[Message]
    enums: Sequence[Enum]

    @property
    def noun(self) -> str:
        """What it is about: the name of the file."""
        return Path(self.path).stem


@dataclass(frozen=True)
class Contract:
    """All files of the contracts."""

    files: Sequence[File]

    @cached_property
    def messages(self) -> Mapping[str, Message]:
        """Every message by its full name."""
        return {message.full_name: message for file in self.files for message in file.messages}

    @property
    def services(self) -> Iterator[Service]:
        """Every service, those for clients first."""
        found = (service for file in self.files for service in file.services)
        return iter(sorted(found, key=lambda service: (not service.public, service.full_name)))

    @property
    def methods(self) -> Iterator[Method]:
        """Every method."""
        return (method for service in self.services for method in service.methods)

    @property
    def reasons(self) -> Sequence[EnumValue]:
        """Every reason of a refusal that is ever sent."""
        enums = [enum for file in self.files for enum in file.enums if enum.name == "ErrorReason"]
        return [value for enum in enums for value in enum.values if not value.name.endswith("_UNSPECIFIED")]


def read_contract(root: Path) -> Contract:
    """Read the contracts, comments included."""
    buf = Path(sys.executable).with_name("buf")
    built = subprocess.run(
        (buf, "build", root / "proto", "--as-file-descriptor-set", "-o", "-"), capture_output=True, check=True
    )
    found = FileDescriptorSet.FromString(built.stdout).file
    return Contract([_file(file) for file in found if file.package.startswith(PACKAGE)])


def _file(file: FileDescriptorProto) -> File:
    texts = {tuple(place.path): _text(place.leading_comments) for place in file.source_code_info.location}
    return File(
        path=file.name,
        package=file.package,
        text=texts.get(_SYNTAX, Text("")),
        services=[_service(file, service, (_SERVICE, at), texts) for at, service in enumerate(file.service)],
        messages=[_message(file, message, (_MESSAGE, at), texts) for at, message in enumerate(file.message_type)],
        enums=[_enum(file, enum, (_ENUM, at), texts) for at, enum in enumerate(file.enum_type)],
    )


Texts = Mapping[tuple[int, ...], Text]


def _service(file: FileDescriptorProto, service: ServiceDescriptorProto, at: tuple[int, ...], texts: Texts) -> Service:
    full_name = f"{file.package}.{service.name}"
    methods = [
        _method(full_name, method, texts.get((*at, _METHOD, number), Text("")))
        for number, method in enumerate(service.method)
    ]
    return Service(full_name, texts.get(at, Text("")), methods)


def _method(service: str, method: MethodDescriptorProto, text: Text) -> Method:
    policy = method.options.Extensions[options_pb2.policy]
    idempotency = MethodOptions.IdempotencyLevel.Name(method.options.idempotency_level)
    return Method(
        service=service,
        name=method.name,
        text=text,
        request=method.input_type.lstrip("."),
        response=method.output_type.lstrip("."),
        client_streaming=method.client_streaming,
        server_streaming=method.server_streaming,
        paths=list(_paths(method)),
        policy=Policy(
            access=options_pb2.Access.Name(policy.access).removeprefix("ACCESS_").lower(),
            permission=policy.permission,
            audit_action=policy.audit_action,
            callers=list(policy.callers),
        ),
        idempotency="" if idempotency == "IDEMPOTENCY_UNKNOWN" else idempotency,
    )


def _paths(method: MethodDescriptorProto) -> Iterator[str]:
    rule = method.options.Extensions[annotations_pb2.http]
    for binding in (rule, *rule.additional_bindings):
        if verb := binding.WhichOneof("pattern"):
            yield f"{verb.upper()} {getattr(binding, verb)}"


def _message(file: FileDescriptorProto, message: DescriptorProto, at: tuple[int, ...], texts: Texts) -> Message:
    fields = [
        _field(message, field, texts.get((*at, _FIELD, number), Text(""))) for number, field in enumerate(message.field)
    ]
    return Message(f"{file.package}.{message.name}", texts.get(at, Text("")), fields)


def _field(message: DescriptorProto, field: FieldDescriptorProto, text: Text) -> Field:
    behavior = set(field.options.Extensions[field_behavior_pb2.field_behavior])
    rules = field.options.Extensions[validate_pb2.field]
    real_oneof = field.HasField("oneof_index") and not field.proto3_optional
    return Field(
        name=field.name,
        json_name=field.json_name,
        type_name=field.type_name.lstrip(".")
        or FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower(),
        repeated=field.label == FieldDescriptorProto.LABEL_REPEATED,
        oneof=message.oneof_decl[field.oneof_index].name if real_oneof else "",
        text=text,
        rules=rules_of(rules),
        required=field_behavior_pb2.REQUIRED in behavior or is_required(rules),
        output_only=field_behavior_pb2.OUTPUT_ONLY in behavior,
        input_only=field_behavior_pb2.INPUT_ONLY in behavior,
        sensitive=field.options.Extensions[options_pb2.sensitive],
    )


def _scalar(field: FieldDescriptorProto) -> str:
    return FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()


def _enum(file: FileDescriptorProto, enum: EnumDescriptorProto, at: tuple[int, ...], texts: Texts) -> Enum:
    values = [
        EnumValue(value.name, texts.get((*at, _VALUE, number), Text(""))) for number, value in enumerate(enum.value)
    ]
    return Enum(f"{file.package}.{enum.name}", texts.get(at, Text("")), values)


def _text(comment: str) -> Text:
    """A comment's parts: its prose, the refusals it lists, and the example, which is indented."""
    lines = [line.removeprefix(" ") for line in comment.strip("\n").splitlines()]
    example = "\n".join(line.strip() for line in lines if line.startswith("    "))
    prose = " ".join(line.strip() for line in lines if not line.startswith("    "))
    body, _, refusals = prose.partition("Refusals: ")
    return Text(body.strip(), refusals.strip(), example)
