"""The contract and the code say the same."""

import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from orginabox.errors.v1 import error_reason_pb2
from orginabox.options.v1 import options_pb2

from services.api import turn
from services.api.mapping import _STATES
from services.kit.errors import DomainError
from services.kit.status import PREFIX

ROOT = Path(__file__).parents[2]


def modules(folder: Path, pattern: str) -> Iterator[str]:
    """The names of the modules below a folder."""
    for path in sorted(folder.rglob(pattern)):
        if path.stem not in {"__main__", "demo_model"}:
            yield ".".join(path.relative_to(folder).with_suffix("").parts)


def all_services() -> Iterator[ServiceDescriptor]:
    for name in modules(ROOT / "gen", "*_service_pb2.py"):
        yield from importlib.import_module(name).DESCRIPTOR.services_by_name.values()


def all_methods() -> list[MethodDescriptor]:
    return [method for service in all_services() for method in service.methods]


def policy(method: MethodDescriptor) -> options_pb2.MethodPolicy:
    found = method.GetOptions().Extensions[options_pb2.policy]
    assert isinstance(found, options_pb2.MethodPolicy)
    return found


def test_every_refusal_of_the_code_is_in_the_contract() -> None:
    for name in modules(ROOT, "services/**/*.py"):
        importlib.import_module(name.removesuffix(".__init__"))
    reasons = {kind.reason for kind in subclasses(DomainError)}
    assert len(reasons) > 20
    assert {PREFIX + reason for reason in reasons} <= set(error_reason_pb2.ErrorReason.keys())


def subclasses(kind: type[DomainError]) -> Iterator[type[DomainError]]:
    for child in kind.__subclasses__():
        yield child
        yield from subclasses(child)


@pytest.mark.parametrize("method", all_methods(), ids=lambda method: method.full_name)
def test_every_method_has_a_whole_policy(method: MethodDescriptor) -> None:
    rule = policy(method)
    public = method.full_name.startswith("orginabox.api.v1.")
    match rule.access:
        case options_pb2.ACCESS_INTERNAL:
            assert not public
            assert rule.callers
        case options_pb2.ACCESS_USER | options_pb2.ACCESS_PUBLIC:
            assert public
            assert not rule.callers
            as_text = method.containing_service.methods_by_name.get(f"{method.name}AsText")
            assert has_http_path(as_text or method), "a public method has an HTTP path"
        case _:
            raise AssertionError("no access")
    changes = public and not method.name.startswith(("Get", "List", "Stream"))
    assert bool(rule.audit_action) == changes


def has_http_path(method: MethodDescriptor) -> bool:
    return any(option.full_name == "google.api.http" for option, _ in method.GetOptions().ListFields())


@pytest.mark.parametrize("method", all_methods(), ids=lambda method: method.full_name)
def test_every_list_is_paged_and_every_creation_can_be_repeated(method: MethodDescriptor) -> None:
    fields = set(method.input_type.fields_by_name)
    if method.name.startswith("List"):
        assert {"page_size", "page_token"} <= fields
        assert "next_page_token" in method.output_type.fields_by_name
    if method.name.startswith("Create") or method.name == "Prompt":
        assert "request_id" in fields


def test_every_state_of_a_turn_is_on_the_wire() -> None:
    assert set(_STATES) == set(turn.TurnState)
