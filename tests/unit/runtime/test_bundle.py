"""What a bundle is made of."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from sandbox.agent import version
from services.kit.ids import DEFAULT_TENANT
from services.runtime.bundle import Base, Bundle, make_bundle
from services.runtime.dialect import DIALECTS, ProviderKind
from services.runtime.provider import Provider, demo_provider

DEMO = demo_provider(DEFAULT_TENANT, "/run/demo.sock", preferred=True)


@pytest.fixture(scope="module")
def base() -> Base:
    return Base.read()


def claude(**values: Any) -> Provider:
    provider = Provider.wanted(DEFAULT_TENANT, "anthropic", ProviderKind.ANTHROPIC, has_key=True)
    return replace(provider, **{"preferred": True} | values)


def config(bundle: Bundle) -> Any:
    return json.loads(bundle.files["opencode.jsonc"])


def document(bundle: Bundle) -> Any:
    return json.loads(bundle.files["runtime.json"])


def test_the_demo_model_comes_with_an_agent_of_its_own(base: Base) -> None:
    bundle = make_bundle(base, [DEMO])

    assert document(bundle) | {"providers": []} == {
        "revision": bundle.revision,
        "default_model": {"provider_id": "demo", "model_id": "smollm2-135m"},
        "demo": True,
        "agents": {"demo": "demo", "*": "main"},
        "providers": [],
    }
    made = config(bundle)
    assert made["default_agent"] == "demo"
    assert made["model"] == made["small_model"] == "demo/smollm2-135m"
    assert made["enabled_providers"] == ["demo"]
    assert made["provider"]["demo"]["models"]["smollm2-135m"]["tool_call"] is False


def test_a_real_provider_brings_the_full_agent_and_the_demo_model_stays(base: Base) -> None:
    bundle = make_bundle(base, [replace(DEMO, preferred=False), claude()])

    made = config(bundle)
    assert made["default_agent"] == "main"
    assert made["model"] == "anthropic/claude-sonnet-4-5"
    assert made["enabled_providers"] == ["anthropic", "demo"]
    assert document(bundle)["demo"] is False
    assert {"agent/main.md", "agent/demo.md"} <= set(bundle.files)


def test_without_any_provider_there_is_still_a_bundle(base: Base) -> None:
    bundle = make_bundle(base, [])
    assert document(bundle)["default_model"] is None
    assert "model" not in config(bundle)


@pytest.mark.parametrize("kind", [kind for kind in ProviderKind if kind is not ProviderKind.DEMO])
def test_every_kind_goes_through_the_door_with_the_sandboxes_token(base: Base, kind: ProviderKind) -> None:
    provider = Provider.wanted(
        DEFAULT_TENANT, "acme", kind, base_url="https://secret-host.example/v1", models=["m"], has_key=True
    )
    bundle = make_bundle(base, [replace(provider, sealed_key="v2:sealed", key_time=datetime.now(UTC))])

    made = config(bundle)["provider"]["acme"]
    assert made["npm"] == DIALECTS[kind].npm
    assert made["options"] == {"baseURL": "http://127.0.0.1:4200/acme", "apiKey": "{env:OIAB_MODEL_TOKEN}"}
    everything = "".join(bundle.files.values())
    assert "sealed" not in everything
    assert "secret-host" not in everything


def test_the_same_makes_the_same_revision_in_any_order(base: Base) -> None:
    other = Provider.wanted(DEFAULT_TENANT, "ollama", ProviderKind.OLLAMA, models=["m"])
    first = make_bundle(base, [claude(), other, replace(DEMO, preferred=False)])
    second = make_bundle(Base.read(), [replace(DEMO, preferred=False), other, claude()])
    assert first == second


@pytest.mark.parametrize(
    "change",
    [
        {"models": ("claude-sonnet-4-5",)},
        {"default_model": "claude-opus-4-7"},
        {"base_url": "https://gateway.example/v1"},
        {"key_time": datetime(2026, 1, 1, tzinfo=UTC)},
        {"preferred": False},
    ],
    ids=str,
)
def test_every_change_that_has_to_be_applied_is_another_revision(base: Base, change: dict[str, Any]) -> None:
    assert make_bundle(base, [claude(**change)]).revision != make_bundle(base, [claude()]).revision


def test_a_time_alone_is_no_other_revision(base: Base) -> None:
    later = claude(update_time=datetime.now(UTC))
    assert make_bundle(base, [later]).revision == make_bundle(base, [claude()]).revision


def test_known_models_come_with_their_limits_and_others_with_careful_ones(base: Base) -> None:
    local = Provider.wanted(
        DEFAULT_TENANT, "vllm", ProviderKind.OPENAI_COMPATIBLE, base_url="http://vllm:8000/v1", models=["gpt-5.4"]
    )
    made = config(make_bundle(base, [claude(), local]))["provider"]
    assert made["anthropic"]["models"]["claude-sonnet-4-5"]["limit"] == {"context": 200_000, "output": 64_000}
    assert made["vllm"]["models"]["gpt-5.4"]["limit"] == {"context": 32_768, "output": 4_096}


def test_default_models_are_known(base: Base) -> None:
    for dialect in DIALECTS.values():
        assert set(dialect.default_models) <= set(base.models)


def test_the_plugin_that_nobody_has_to_install_is_of_the_pinned_version(base: Base) -> None:
    files = make_bundle(base, [DEMO]).files
    package = json.loads(files["node_modules/@opencode-ai/plugin/package.json"])
    assert package == {"name": "@opencode-ai/plugin", "version": version()}
    assert {"package.json", "package-lock.json"} <= set(files)


def test_questions_that_nobody_can_answer_are_not_asked(base: Base) -> None:
    rules = config(make_bundle(base, [claude()]))["permission"]
    assert {name: rules[name] for name in ("edit", "webfetch", "websearch", "question")} == {
        "edit": "ask",
        "webfetch": "deny",
        "websearch": "deny",
        "question": "deny",
    }
    assert next(iter(rules["bash"].items())) == ("*", "ask"), "the last rule that fits counts, so this one is first"
    assert rules["external_directory"]["*"] == "deny"
