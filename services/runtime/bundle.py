"""The runtime bundle: what a sandbox is configured with, made of providers and the checked-in base.

A bundle is a few files and a revision. The revision is a digest of all that is in it, so that the same providers on the
same base always make the same one. It holds no key and no address of a provider: an agent can read all of it.
"""

import hashlib
import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from sandbox.agent import write_stub_plugin
from services.runtime.dialect import ProviderKind
from services.runtime.provider import Provider

BASE = Path(__file__).parents[2] / "runtime" / "base"

# Where the model door is inside every sandbox, and the variable that holds the sandbox's token for it.
MODEL_DOOR = "http://127.0.0.1:4200"
TOKEN_VARIABLE = "OIAB_MODEL_TOKEN"  # noqa: S105 - the name of a variable

DEMO_AGENT = "demo"
MAIN_AGENT = "main"
ANY_PROVIDER = "*"

# What is assumed of a model that the base does not know. A vendor's are large. One that a company runs itself is often
# small, and a server refuses a call that asks for more than it has.
_VENDOR_LIMIT = {"context": 128_000, "output": 16_384}
_SELF_HOSTED_LIMIT = {"context": 32_768, "output": 4_096}
_DEMO_LIMIT = {"context": 4_096, "output": 1_024}
_SELF_HOSTED = frozenset({ProviderKind.OPENAI_COMPATIBLE, ProviderKind.OLLAMA})

_COMMENT_LINE = re.compile(r"^\s*//.*$", re.MULTILINE)


@dataclass(frozen=True)
class Base:
    """The checked-in part of every bundle."""

    config: Mapping[str, Any]
    models: Mapping[str, Mapping[str, Any]]
    files: Mapping[str, str]

    @classmethod
    def read(cls, folder: Path = BASE) -> Self:
        """Read the base, once per process.

        `models.json` of a bundle is an empty catalogue. opencode brings one of thousands of models; told to read this
        one (OPENCODE_MODELS_PATH), it starts in two thirds of the time with 120 MB less.
        """
        agents = {f"agent/{path.name}": path.read_text() for path in sorted((folder / "agent").glob("*.md"))}
        return cls(
            config=json.loads(_COMMENT_LINE.sub("", (folder / "opencode.jsonc").read_text())),
            models=json.loads((folder / "models.json").read_text()),
            files=agents | _stub_plugin() | {"models.json": "{}\n"},
        )


@dataclass(frozen=True)
class Bundle:
    """What a sandbox is configured with."""

    revision: str
    files: Mapping[str, str]


def make_bundle(base: Base, providers: Sequence[Provider]) -> Bundle:
    """The bundle of the providers. One of them is preferred; its default model is the default of the bundle."""
    ordered = sorted(providers, key=lambda provider: provider.provider_id)
    preferred = preferred_of(ordered)
    runtime = _runtime(ordered, preferred)
    files = {**base.files, "opencode.jsonc": _text(_opencode(base, ordered, preferred))}
    revision = _digest(files | {"runtime.json": _text(runtime)})
    return Bundle(revision, files | {"runtime.json": _text({"revision": revision, **runtime})})


def _stub_plugin() -> dict[str, str]:
    """What makes opencode believe that its plugin package is installed, so that it never installs anything."""
    with tempfile.TemporaryDirectory(prefix="oiab-") as folder:
        write_stub_plugin(Path(folder))
        found = (path for path in Path(folder).rglob("*") if path.is_file())
        return {path.relative_to(folder).as_posix(): path.read_text() for path in found}


def preferred_of(providers: Sequence[Provider]) -> Provider | None:
    """The provider to use when none is asked for."""
    return next((provider for provider in providers if provider.preferred), None)


def _runtime(providers: Sequence[Provider], preferred: Provider | None) -> dict[str, Any]:
    """Our own document of the bundle: what the services want to know of it."""
    return {
        "default_model": _model(preferred) if preferred else None,
        "demo": preferred is not None and preferred.demo,
        # With which agent a model is to be prompted: by its provider, or any.
        "agents": {DEMO_AGENT: DEMO_AGENT, ANY_PROVIDER: MAIN_AGENT},
        "providers": [
            {
                "provider_id": provider.provider_id,
                "kind": provider.kind,
                "models": provider.models,
                "fingerprint": provider.fingerprint,
            }
            for provider in providers
        ],
    }


def _model(provider: Provider) -> dict[str, str]:
    return {"provider_id": provider.provider_id, "model_id": provider.default_model}


def _opencode(base: Base, providers: Sequence[Provider], preferred: Provider | None) -> dict[str, Any]:
    """The configuration of opencode."""
    config = dict(base.config)
    config["enabled_providers"] = [provider.provider_id for provider in providers]
    config["provider"] = {provider.provider_id: _provider(base, provider) for provider in providers}
    if preferred:
        # The small model is named too: opencode would else look for one that the door does not know.
        config["model"] = config["small_model"] = f"{preferred.provider_id}/{preferred.default_model}"
        config["default_agent"] = DEMO_AGENT if preferred.demo else MAIN_AGENT
    return config


def _provider(base: Base, provider: Provider) -> dict[str, Any]:
    return {
        "npm": provider.dialect.npm,
        "name": "Demo model" if provider.demo else provider.provider_id,
        # A name that opencode knows comes with its whole catalogue; these are the models that may be used.
        "whitelist": list(provider.models),
        "options": {
            "baseURL": f"{MODEL_DOOR}/{provider.provider_id}",
            "apiKey": f"{{env:{TOKEN_VARIABLE}}}",
        },
        "models": {model: _described(base, provider, model) for model in provider.models},
    }


def _described(base: Base, provider: Provider, model: str) -> dict[str, Any]:
    if provider.demo:
        return {"name": f"{model} (demo)", "tool_call": False, "limit": _DEMO_LIMIT}
    known = base.models.get(model) if provider.kind not in _SELF_HOSTED else None
    limit = _SELF_HOSTED_LIMIT if provider.kind in _SELF_HOSTED else _VENDOR_LIMIT
    return {"name": model, "tool_call": True, "limit": limit, **(known or {})}


def _text(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _digest(files: Mapping[str, str]) -> str:
    """A digest of names and contents. Lengths stand between them, so that no two sets of files read the same."""
    found = hashlib.sha256()
    for name, text in sorted(files.items()):
        for part in (name.encode(), text.encode()):
            found.update(len(part).to_bytes(8, "big") + part)
    return found.hexdigest()[:32]
