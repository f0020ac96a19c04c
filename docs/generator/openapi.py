"""The contract as an OpenAPI 3.1 document, for clients and tools that speak REST.

It says what Envoy's transcoder does: paths and bodies by `google.api.http`, messages in the canonical JSON of Protobuf,
and of the rules of protovalidate those that JSON Schema has words for.
"""

import importlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from buf.validate import validate_pb2
from google.api import annotations_pb2, field_behavior_pb2
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, MethodDescriptor

from docs.generator.contract import Contract, Method

Schema = dict[str, Any]

STATUS = "google.rpc.Status"
_INT64 = {"type": "string", "pattern": "^-?[0-9]{1,19}$"}
_DURATION = {"type": "string", "pattern": r"^-?[0-9]{1,12}(\.[0-9]{1,9})?s$"}
WELL_KNOWN: Mapping[str, Schema] = {
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Duration": _DURATION,
    "google.protobuf.FieldMask": {"type": "string"},
    "google.protobuf.Struct": {"type": "object"},
    "google.protobuf.Value": {},
    "google.api.HttpBody": {"type": "string", "format": "binary"},
    "google.protobuf.Any": {"type": "object", "properties": {"@type": {"type": "string"}}},
}
_SCALARS: Mapping[int, Schema] = {
    FieldDescriptor.TYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.TYPE_STRING: {"type": "string"},
    FieldDescriptor.TYPE_BYTES: {"type": "string", "format": "byte"},
    FieldDescriptor.TYPE_INT32: {"type": "integer", "format": "int32"},
    FieldDescriptor.TYPE_UINT32: {"type": "integer", "minimum": 0, "maximum": 4294967295},
    FieldDescriptor.TYPE_INT64: _INT64,
    FieldDescriptor.TYPE_UINT64: _INT64,
    FieldDescriptor.TYPE_FIXED64: _INT64,
    FieldDescriptor.TYPE_SFIXED64: _INT64,
    FieldDescriptor.TYPE_DOUBLE: {"type": "number"},
    FieldDescriptor.TYPE_FLOAT: {"type": "number"},
}
_RULES: Mapping[str, Mapping[str, str]] = {
    "string": {"min_len": "minLength", "max_len": "maxLength", "pattern": "pattern"},
    "repeated": {"min_items": "minItems", "max_items": "maxItems"},
    "int32": {"gte": "minimum", "lte": "maximum"},
    "double": {"gte": "minimum", "lte": "maximum"},
}
_FORMATS = {"uuid": "uuid", "email": "email", "uri": "uri"}


def make_openapi(contract: Contract, version: str) -> str:
    """The document as JSON text.

    Args:
        contract: The contracts with their comments.
        version: The version of the product.
    """
    return json.dumps(_Document(contract).whole(version), indent=1, ensure_ascii=False) + "\n"


class _Document:
    """Writes the document, and notes which messages it speaks of."""

    def __init__(self, contract: Contract) -> None:
        self._contract = contract
        self._texts = {
            f"{message.full_name}.{field.name}": field.text.body
            for message in contract.messages.values()
            for field in message.fields
        }
        self._schemas: dict[str, Schema] = {}
        for file in contract.files:
            importlib.import_module(file.path.removesuffix(".proto").replace("/", ".") + "_pb2")

    def whole(self, version: str) -> Schema:
        """The document."""
        public = [service for service in self._contract.services if service.public]
        paths: dict[str, Schema] = {}
        for method in (method for service in public for method in service.methods):
            for verb, path in self._bindings(method):
                paths.setdefault(_template(path), {})[verb] = self._operation(method, verb, path)
        self._schemas[STATUS] = _STATUS_SCHEMA
        return {
            "openapi": "3.1.0",
            "info": {
                "title": "Org in a Box",
                "version": version,
                "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
                "description": "The REST face of the contract. A refusal is a google.rpc.Status with one ErrorInfo.",
            },
            "servers": [{"url": "http://127.0.0.1:8787"}],
            "security": [{"bearer": []}],
            "tags": [{"name": service.name, "description": service.text.body} for service in public],
            "paths": dict(sorted(paths.items())),
            "components": {
                "schemas": dict(sorted(self._schemas.items())),
                "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
            },
        }

    def _bindings(self, method: Method) -> Iterator[tuple[str, str]]:
        for path in method.paths:
            verb, _, template = path.partition(" ")
            yield verb.lower(), template

    def _operation(self, method: Method, verb: str, path: str) -> Schema:
        found = _descriptor(method)
        in_path = re.findall(r"{([a-z0-9_.]+)", path)
        body = found.GetOptions().Extensions[annotations_pb2.http].body == "*" and verb != "get"
        operation: Schema = {
            "operationId": f"{method.service.rpartition('.')[2]}_{method.name}",
            "tags": [method.service.rpartition(".")[2]],
            "summary": method.text.first,
            "description": method.text.body,
            "parameters": [self._path_parameter(found.input_type, name) for name in in_path],
            "responses": self._responses(method, found),
        }
        if method.text.refusals:
            operation["description"] += f"\n\nRefusals: {method.text.refusals}"
        if method.policy.access == "public":
            operation["security"] = []
        if method.policy.permission:
            operation["x-permission"] = method.policy.permission
        if body:
            schema = self._message(found.input_type, left_out=in_path)
            operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
        else:
            operation["parameters"] += list(self._query(found.input_type, in_path))
        return operation

    def _path_parameter(self, message: Descriptor, name: str) -> Schema:
        *way, last = name.split(".")
        for step in way:
            message = message.fields_by_name[step].message_type or message
        field = message.fields_by_name[last]
        return {
            "name": last,
            "in": "path",
            "required": True,
            "description": self._texts.get(field.full_name, ""),
            "schema": {"minLength": 1} | self._field(field),
        }

    def _query(self, message: Descriptor, left_out: Sequence[str]) -> Iterator[Schema]:
        for field in message.fields:
            if field.name in left_out or (field.message_type and field.message_type.full_name not in WELL_KNOWN):
                continue
            yield {
                "name": field.json_name,
                "in": "query",
                "required": False,
                "description": self._texts.get(field.full_name, ""),
                "schema": self._field(field),
            }

    def _responses(self, method: Method, found: MethodDescriptor) -> Schema:
        kind = "text/event-stream" if method.server_streaming else "application/json"
        schema = self._reference(found.output_type)
        return {
            "200": {"description": "Done.", "content": {kind: {"schema": schema}}},
            "default": {
                "description": "Refused.",
                "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{STATUS}"}}},
            },
        }

    def _reference(self, message: Descriptor) -> Schema:
        name = message.full_name
        if name in WELL_KNOWN:
            return dict(WELL_KNOWN[name])
        if name not in self._schemas:
            self._schemas[name] = {}  # noted before it is written: a message may hold itself
            self._schemas[name] = self._message(message)
        return {"$ref": f"#/components/schemas/{name}"}

    def _message(self, message: Descriptor, left_out: Sequence[str] = ()) -> Schema:
        fields = [field for field in message.fields if field.name not in left_out]
        schema: Schema = {
            "type": "object",
            "properties": {field.json_name: self._described(field) for field in fields},
        }
        if required := [field.json_name for field in fields if _is_required(field)]:
            schema["required"] = required
        return schema

    def _described(self, field: FieldDescriptor) -> Schema:
        schema = self._field(field)
        behavior = field.GetOptions().Extensions[field_behavior_pb2.field_behavior]
        if text := self._texts.get(field.full_name):
            schema["description"] = text
        if field_behavior_pb2.OUTPUT_ONLY in behavior:
            schema["readOnly"] = True
        if field_behavior_pb2.INPUT_ONLY in behavior:
            schema["writeOnly"] = True
        return schema

    def _field(self, field: FieldDescriptor) -> Schema:
        rules = field.GetOptions().Extensions[validate_pb2.field]
        if field.message_type and field.message_type.GetOptions().map_entry:
            return {"type": "object", "additionalProperties": self._value(field.message_type.fields_by_name["value"])}
        if field.is_repeated:
            items = self._value(field) | _constraints(rules.repeated.items)
            return {"type": "array", "items": items} | _constraints(rules)
        return _or_empty(self._value(field) | _constraints(rules), rules)

    def _value(self, field: FieldDescriptor) -> Schema:
        if field.message_type:
            return self._reference(field.message_type)
        if field.enum_type:
            return _enum(field.enum_type)
        return dict(_SCALARS[field.type])


_STATUS_SCHEMA: Schema = {
    "type": "object",
    "description": "A refusal: a canonical code, a sentence that says what to do, and one ErrorInfo among the details.",
    "properties": {
        "code": {"type": "integer"},
        "message": {"type": "string"},
        "details": {"type": "array", "items": {"type": "object", "properties": {"@type": {"type": "string"}}}},
    },
    "required": ["code", "message"],
}


def _descriptor(method: Method) -> MethodDescriptor:
    return descriptor_pool.Default().FindServiceByName(method.service).methods_by_name[method.name]


def _template(path: str) -> str:
    """The path as OpenAPI says it: of a field within a field the last name, since tools take dots for their own."""
    return re.sub(r"{(?:[a-z0-9_]+\.)*([a-z0-9_]+)(?:=[^}]*)?}", r"{\1}", path)


def _enum(enum: EnumDescriptor) -> Schema:
    return {"type": "string", "enum": [value.name for value in enum.values]}


def _is_required(field: FieldDescriptor) -> bool:
    return field_behavior_pb2.REQUIRED in field.GetOptions().Extensions[field_behavior_pb2.field_behavior]


def _constraints(rules: validate_pb2.FieldRules) -> Schema:
    kind = rules.WhichOneof("type")
    if not kind:
        return {}
    said = getattr(rules, kind)
    words = _RULES.get(kind, {})
    found: Schema = {words[rule.name]: value for rule, value in said.ListFields() if rule.name in words}
    if kind == "string":
        found |= next(({"format": form} for rule, form in _FORMATS.items() if getattr(said, rule)), {})
    return found


def _or_empty(schema: Schema, rules: validate_pb2.FieldRules) -> Schema:
    """The schema, or nothing at all where the contract says that nothing is fine, too."""
    if rules.ignore == validate_pb2.IGNORE_IF_ZERO_VALUE and schema.get("type") == "string":
        return {"anyOf": [schema, {"const": ""}]}
    return schema
