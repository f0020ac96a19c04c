"""A provider: where models are called and with which key; its rules and its refusals."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Self
from uuid import UUID

from services.kit.errors import DomainError, Kind
from services.runtime.address import Address
from services.runtime.dialect import DIALECTS, Dialect, ProviderKind

DEMO_ID = "demo"
DEMO_MODEL = "smollm2-135m"
MAX_MODELS = 200
MAX_MODEL_ID = 128
CHANGEABLE = frozenset({"base_url", "models", "default_model", "preferred"})

_ID = re.compile(r"[a-z][a-z0-9-]{0,31}")
_KEY = re.compile(r"[\x21-\x7e]+")
# Braces would mean something in opencode's configuration: it fills in variables and files.
_MODEL_ID = re.compile(r"[^\s{}\"\\]+")

# opencode treats a provider of one of these names in a way of its own (other paths, other credentials), whatever the
# configuration says. The vendors that we have a kind for may use their name with that kind; the others may not.
_TAKEN_IDS = frozenset(
    {
        "amazon-bedrock",
        "azure-cognitive-services",
        "cerebras",
        "cloudflare-ai-gateway",
        "cloudflare-workers-ai",
        "github-copilot",
        "gitlab",
        "google-vertex",
        "google-vertex-anthropic",
        "kilo",
        "llmgateway",
        "meta",
        "nvidia",
        "opencode",
        "openrouter",
        "sap-ai-core",
        "snowflake-cortex",
        "vercel",
        "xai",
        "zenmux",
    }
)


class ProviderNotFound(DomainError):
    """No provider of the tenant has this id."""

    kind = Kind.NOT_FOUND
    reason = "PROVIDER_NOT_FOUND"


class ProviderExists(DomainError):
    """A provider of the tenant has this id already."""

    kind = Kind.ALREADY_EXISTS
    reason = "PROVIDER_EXISTS"


class ProviderBuiltIn(DomainError):
    """The provider came with the box."""

    kind = Kind.FAILED_PRECONDITION
    reason = "PROVIDER_BUILT_IN"


class ProviderInvalid(DomainError):
    """A field of the provider has a value that it cannot have."""

    kind = Kind.INVALID_ARGUMENT
    reason = "INVALID_ARGUMENT"


@dataclass(frozen=True)
class Provider:
    """Where models are called."""

    tenant_id: UUID
    provider_id: str
    kind: ProviderKind
    base_url: str
    models: tuple[str, ...]
    default_model: str
    preferred: bool = False
    sealed_key: str = field(default="", repr=False)
    key_imported: bool = False
    """Whether the key came, still sealed, from the original product."""
    key_time: datetime | None = None
    create_time: datetime | None = None
    update_time: datetime | None = None

    @classmethod
    def wanted(
        cls,
        tenant_id: UUID,
        provider_id: str,
        kind: ProviderKind,
        *,
        base_url: str = "",
        models: Sequence[str] = (),
        default_model: str = "",
        has_key: bool = False,
    ) -> Self:
        """A provider as somebody wants it, if it keeps the rules.

        Raises:
            ProviderExists: The name is that of the demo model.
            ProviderInvalid: A field has a value that it cannot have.
            ProviderAddressRefused: The address may not be used.
        """
        _check_id(provider_id, kind)
        dialect = DIALECTS[kind]
        chosen = tuple(models) or dialect.default_models
        _check_models(chosen, kind)
        if dialect.vendor_url.startswith("https://") and not base_url and not has_key:
            raise ProviderInvalid(f"{kind} takes no calls without a key", field="api_key")
        return cls(
            tenant_id=tenant_id,
            provider_id=provider_id,
            kind=kind,
            base_url=_checked_url(base_url, dialect, kind, has_key=has_key),
            models=chosen,
            default_model=_checked_default(default_model, chosen),
        )

    @property
    def dialect(self) -> Dialect:
        """What it speaks."""
        return DIALECTS[self.kind]

    @property
    def demo(self) -> bool:
        """Whether it is the model that came with the box."""
        return self.kind is ProviderKind.DEMO

    @property
    def has_key(self) -> bool:
        """Whether a key is stored."""
        return bool(self.sealed_key)

    @property
    def record(self) -> str:
        """Its identity, to which the stored key is bound."""
        return record_of(self.tenant_id, self.provider_id)

    @property
    def address(self) -> Address:
        """Where it is called."""
        if self.demo:
            return Address("http", DEMO_ID, 80, self.dialect.root, socket=self.base_url)
        return Address.parse(self.base_url or self.dialect.vendor_url, root=self.dialect.root)

    @property
    def fingerprint(self) -> str:
        """Tells whether calls would go elsewhere or with another key, without telling where or with which."""
        known = f"{self.base_url}\n{self.key_time.isoformat() if self.key_time else ''}"
        return hashlib.sha256(known.encode()).hexdigest()[:16]

    def changed(
        self,
        *,
        base_url: str | None = None,
        models: Sequence[str] | None = None,
        default_model: str | None = None,
        has_key: bool,
    ) -> Self:
        """The provider with other values. A default model that is no model any more gives way to the first.

        Raises:
            ProviderInvalid: A field has a value that it cannot have.
            ProviderAddressRefused: The address may not be used.
        """
        chosen = self.models if models is None else tuple(models) or self.dialect.default_models
        _check_models(chosen, self.kind)
        kept = self.default_model if self.default_model in chosen else ""
        url = self.base_url if base_url is None else base_url
        return replace(
            self,
            base_url=_checked_url(url, self.dialect, self.kind, has_key=has_key),
            models=chosen,
            default_model=_checked_default(kept if default_model is None else default_model, chosen),
        )


def record_of(tenant_id: UUID, provider_id: str) -> str:
    """The identity of a provider, to which its stored key is bound."""
    return f"provider:{tenant_id}:{provider_id}"


def demo_provider(tenant_id: UUID, socket: str, *, preferred: bool) -> Provider:
    """The built-in provider of the demo model, which is not stored."""
    return Provider(
        tenant_id=tenant_id,
        provider_id=DEMO_ID,
        kind=ProviderKind.DEMO,
        base_url=socket,
        models=(DEMO_MODEL,),
        default_model=DEMO_MODEL,
        preferred=preferred,
    )


def checked_key(key: str) -> str:
    """The key without the blanks around it.

    Raises:
        ProviderInvalid: It holds what a header cannot carry.
    """
    key = key.strip()
    if key and not _KEY.fullmatch(key):
        raise ProviderInvalid("a key has only printable characters and no blanks", field="api_key")
    return key


def refuse_built_in(provider_id: str) -> None:
    """Refuse to change what came with the box.

    Raises:
        ProviderBuiltIn: It is the demo model.
    """
    if provider_id == DEMO_ID:
        raise ProviderBuiltIn("the demo model came with the box and cannot be changed", providerId=provider_id)


def _check_id(provider_id: str, kind: ProviderKind) -> None:
    if provider_id == DEMO_ID:
        raise ProviderExists("the demo model has this name; take another", providerId=provider_id)
    if kind is ProviderKind.DEMO:
        raise ProviderInvalid("the demo model is there already and cannot be added", field="provider.kind")
    if not _ID.fullmatch(provider_id):
        raise ProviderInvalid(
            "a provider's name has up to 32 lower-case letters, digits and dashes, and begins with a letter",
            field="provider.provider_id",
        )
    owner = next((owner for owner, dialect in DIALECTS.items() if dialect.native_id == provider_id), kind)
    if provider_id in _TAKEN_IDS or owner is not kind:
        raise ProviderInvalid(
            f"the agent takes the name {provider_id} for that vendor's own service; take another, such as "
            f"my-{provider_id}",
            field="provider.provider_id",
        )


def _check_models(models: Sequence[str], kind: ProviderKind) -> None:
    if not models:
        raise ProviderInvalid(f"{kind} needs at least one model by name", field="provider.models")
    if len(models) > MAX_MODELS or len(set(models)) != len(models):
        raise ProviderInvalid(f"a provider has up to {MAX_MODELS} models, each once", field="provider.models")
    for model in models:
        if len(model) > MAX_MODEL_ID or not model.isprintable() or not _MODEL_ID.fullmatch(model):
            raise ProviderInvalid(
                f"a model's name has up to {MAX_MODEL_ID} characters and no blanks, braces or quotes",
                field="provider.models",
            )


def _checked_default(default_model: str, models: Sequence[str]) -> str:
    if default_model and default_model not in models:
        raise ProviderInvalid(f"{default_model} is not one of the provider's models", field="provider.default_model")
    return default_model or models[0]


def _checked_url(url: str, dialect: Dialect, kind: ProviderKind, *, has_key: bool) -> str:
    """The address as it is kept: empty where the vendor's own is meant."""
    if not url:
        if not dialect.vendor_url:
            raise ProviderInvalid(f"{kind} needs an address", field="provider.base_url")
        return ""
    return Address.parse(url, root=dialect.root, has_key=has_key).url
