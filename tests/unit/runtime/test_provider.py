"""What a provider may be."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from services.kit.errors import DomainError
from services.kit.ids import DEFAULT_TENANT
from services.runtime.address import ProviderAddressRefused
from services.runtime.dialect import DIALECTS, ProviderKind
from services.runtime.mapping import KINDS
from services.runtime.provider import Provider, ProviderExists, ProviderInvalid, checked_key, demo_provider


def wanted(provider_id: str = "acme", kind: ProviderKind = ProviderKind.OPENAI_COMPATIBLE, **values: Any) -> Provider:
    needed = {"base_url": "https://a.example/v1", "models": ["m"]} if kind is ProviderKind.OPENAI_COMPATIBLE else {}
    return Provider.wanted(DEFAULT_TENANT, provider_id, kind, **(needed | values))


def test_every_kind_has_a_dialect_and_a_wire_value() -> None:
    assert set(DIALECTS) == set(ProviderKind) == set(KINDS)


def test_vendors_need_nothing_but_a_key() -> None:
    claude = wanted("anthropic", ProviderKind.ANTHROPIC, has_key=True)
    assert not claude.base_url
    assert claude.address.url == "https://api.anthropic.com/v1"
    assert claude.models == ("claude-sonnet-4-5", "claude-opus-4-7")
    assert claude.default_model == "claude-sonnet-4-5"

    gpt = wanted("openai", ProviderKind.OPENAI, has_key=True)
    assert gpt.address.url == "https://api.openai.com/v1"
    assert gpt.default_model == gpt.models[0] == "gpt-5.4"


def test_ollama_needs_nothing_but_models() -> None:
    assert wanted("ollama", ProviderKind.OLLAMA, models=["llama3.2"]).address.url == "http://127.0.0.1:11434/v1"


@pytest.mark.parametrize(
    ("kind", "values", "says"),
    [
        (ProviderKind.ANTHROPIC, {}, "key"),
        (ProviderKind.OPENAI, {}, "key"),
        (ProviderKind.AZURE, {"has_key": True, "models": ["m"]}, "address"),
        (ProviderKind.AZURE, {"has_key": True, "base_url": "https://r.openai.azure.com"}, "model"),
        (ProviderKind.OLLAMA, {}, "model"),
        (ProviderKind.OPENAI_COMPATIBLE, {"base_url": ""}, "address"),
        (ProviderKind.OPENAI_COMPATIBLE, {"models": []}, "model"),
        (ProviderKind.OPENAI_COMPATIBLE, {"models": ["m", "m"]}, "once"),
        (ProviderKind.OPENAI_COMPATIBLE, {"models": ["a b"]}, "blanks"),
        (ProviderKind.OPENAI_COMPATIBLE, {"models": [""]}, "blanks"),
        (ProviderKind.OPENAI_COMPATIBLE, {"models": ["{file:/etc/passwd}"]}, "braces"),
        (ProviderKind.OPENAI_COMPATIBLE, {"models": ["m" * 129]}, "128"),
        (ProviderKind.OPENAI_COMPATIBLE, {"default_model": "other"}, "other"),
        (ProviderKind.DEMO, {}, "demo"),
    ],
)
def test_what_is_missing_or_wrong_is_said(kind: ProviderKind, values: dict[str, Any], says: str) -> None:
    with pytest.raises(ProviderInvalid, match=says):
        wanted(kind=kind, **values)


@pytest.mark.parametrize(
    ("provider_id", "refusal"),
    [
        ("demo", ProviderExists),
        ("", ProviderInvalid),
        ("Acme", ProviderInvalid),
        ("1st", ProviderInvalid),
        ("a/b", ProviderInvalid),
        ("a" * 33, ProviderInvalid),
        # opencode would call these in a way of its own.
        ("openai", ProviderInvalid),
        ("anthropic", ProviderInvalid),
        ("openrouter", ProviderInvalid),
    ],
)
def test_names_that_are_taken_or_no_names_are_refused(provider_id: str, refusal: type[DomainError]) -> None:
    with pytest.raises(refusal):
        wanted(provider_id)


def test_the_address_is_kept_as_it_is_meant() -> None:
    azure = wanted("azure", ProviderKind.AZURE, base_url="https://R.openai.azure.com/", models=["gpt-4o"])
    assert azure.base_url == "https://r.openai.azure.com/openai/v1"
    assert azure.address.url == azure.base_url


def test_a_key_needs_https_also_when_it_comes_later() -> None:
    provider = wanted(base_url="http://api.example.com/v1")
    with pytest.raises(ProviderAddressRefused):
        provider.changed(has_key=True)
    assert provider.changed(has_key=False) == provider


def test_a_default_model_that_is_gone_gives_way_to_the_first() -> None:
    provider = wanted(models=["a", "b"], default_model="b")
    assert provider.changed(models=["c", "b"], has_key=False).default_model == "b"
    assert provider.changed(models=["c", "d"], has_key=False).default_model == "c"
    assert provider.changed(default_model="", has_key=False).default_model == "a"
    with pytest.raises(ProviderInvalid):
        provider.changed(models=["c"], default_model="b", has_key=False)


def test_the_fingerprint_tells_of_another_key_and_another_address_only() -> None:
    provider = wanted()
    assert replace(provider, key_time=datetime(2026, 1, 1, tzinfo=UTC)).fingerprint != provider.fingerprint
    assert provider.changed(base_url="https://b.example/v1", has_key=False).fingerprint != provider.fingerprint
    assert provider.changed(models=["n"], has_key=False).fingerprint == provider.fingerprint


def test_a_key_is_one_word() -> None:
    assert checked_key(" sk-1\n") == "sk-1"
    for wrong in ("a b", "a\r\nx-other: 1", "schlüssel"):
        with pytest.raises(ProviderInvalid) as refused:
            checked_key(wrong)
        assert wrong not in str(refused.value)


def test_a_provider_does_not_show_its_key() -> None:
    assert "v2:secret" not in repr(replace(wanted(), sealed_key="v2:secret"))


def test_the_demo_model_is_reached_on_its_socket() -> None:
    demo = demo_provider(DEFAULT_TENANT, "/run/demo.sock", preferred=True)
    assert demo.address.socket == "/run/demo.sock"
    assert demo.address.path == "/v1"
    assert demo.demo
