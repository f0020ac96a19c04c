"""The OpenAPI document is one that tools take, and says what the contract says."""

import json
from pathlib import Path

import schemathesis
from google.api import annotations_pb2
from schemathesis.core.result import Ok

from tests.architecture.test_contract import all_methods

DOCUMENT = json.loads((Path(__file__).parents[2] / "docs/pages/reference/openapi.json").read_text())


def test_every_public_method_is_an_operation() -> None:
    told = {operation["operationId"] for path in DOCUMENT["paths"].values() for operation in path.values()}
    there = {
        f"{method.containing_service.name}_{method.name}"
        for method in all_methods()
        if method.full_name.startswith("orginabox.api.v1.") and method.GetOptions().HasExtension(annotations_pb2.http)
    }
    assert told == there


def test_tools_read_it() -> None:
    schema = schemathesis.openapi.from_dict(DOCUMENT)
    read = [result for result in schema.get_all_operations() if isinstance(result, Ok)]
    assert len(read) == sum(len(path) for path in DOCUMENT["paths"].values())


def test_rules_of_the_contract_are_in_it() -> None:
    body = DOCUMENT["paths"]["/v1/auth/sign-in"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body["required"] == ["handle", "password"]
    assert body["properties"]["handle"]["maxLength"] == 254
    assert DOCUMENT["paths"]["/v1/auth/sign-in"]["post"]["security"] == []
    assert DOCUMENT["paths"]["/v1/admin/users"]["get"]["x-permission"] == "admin.manage_users"
