"""What each kind of provider speaks: its library in the agent, its address, its key's header, the calls it takes."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

# The calls that a sandbox may make, as they follow a provider's base address. A token of the door stands for the
# company's key, and with that one could also read files, train models or manage the account: none of it leaves.
_OPENAI_CALLS = frozenset(
    {
        ("POST", "/chat/completions"),
        ("POST", "/completions"),
        ("POST", "/embeddings"),
        ("POST", "/responses"),
        ("GET", "/models"),
    }
)
_ANTHROPIC_CALLS = frozenset({("POST", "/messages"), ("POST", "/messages/count_tokens"), ("GET", "/models")})


class ProviderKind(StrEnum):
    """What a provider speaks."""

    DEMO = "demo"
    ANTHROPIC = "anthropic"
    OPENAI = "openai"
    AZURE = "azure"
    OPENAI_COMPATIBLE = "openai-compatible"
    OLLAMA = "ollama"


@dataclass(frozen=True)
class Dialect:
    """The facts of one kind."""

    npm: str
    """The library with which the agent calls it. All are bundled with opencode, so nothing is ever installed."""
    calls: frozenset[tuple[str, str]]
    """Method and path of the calls that may be made."""
    key_header: str = "authorization"
    key_prefix: str = "Bearer "
    vendor_url: str = ""
    """Where it is when nobody says. Empty means that an address must be given."""
    root: str = ""
    """The path that an address means which has none or only the beginning of it. The agent's library adds the call."""
    default_models: tuple[str, ...] = ()
    """The models when nobody says. Empty means that some must be given."""
    native_id: str = ""
    """The name under which opencode itself knows this vendor, and treats it in a way of its own."""


DIALECTS: Mapping[ProviderKind, Dialect] = {
    ProviderKind.DEMO: Dialect(npm="@ai-sdk/openai-compatible", calls=_OPENAI_CALLS, root="/v1"),
    ProviderKind.ANTHROPIC: Dialect(
        npm="@ai-sdk/anthropic",
        calls=_ANTHROPIC_CALLS,
        key_header="x-api-key",
        key_prefix="",
        vendor_url="https://api.anthropic.com/v1",
        root="/v1",
        default_models=("claude-sonnet-4-5", "claude-opus-4-7"),
        native_id="anthropic",
    ),
    ProviderKind.OPENAI: Dialect(
        npm="@ai-sdk/openai",
        calls=_OPENAI_CALLS,
        vendor_url="https://api.openai.com/v1",
        root="/v1",
        # The general and the small model of the newest GPT-5 line that the pinned opencode knows with both sizes.
        default_models=("gpt-5.4", "gpt-5.4-mini"),
        native_id="openai",
    ),
    ProviderKind.AZURE: Dialect(
        npm="@ai-sdk/azure",
        calls=_OPENAI_CALLS,
        key_header="api-key",
        key_prefix="",
        root="/openai/v1",
        native_id="azure",
    ),
    ProviderKind.OPENAI_COMPATIBLE: Dialect(npm="@ai-sdk/openai-compatible", calls=_OPENAI_CALLS),
    ProviderKind.OLLAMA: Dialect(
        npm="@ai-sdk/openai-compatible",
        calls=_OPENAI_CALLS,
        vendor_url="http://127.0.0.1:11434/v1",
        root="/v1",
    ),
}
