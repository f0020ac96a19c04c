"""How the errors of an agent and its model are told: in our words, for a provider's may hold addresses and more."""

from services.sandbox import agent_events as said_by
from services.sandbox import event as events


def retry_message(said: str) -> str:
    """Why a call is tried again, in our words: the provider's may hold addresses and more."""
    if is_rate_limit(said):
        return "The model provider limits how often it may be called. Trying again."
    return "The model provider did not answer well. Trying again."


def is_rate_limit(said: str) -> bool:
    """Whether a provider's message speaks of a limit of its own."""
    words = ("rate limit", "rate_limit", "ratelimit", "too many requests", "quota", "overloaded", "429")
    return any(word in said.lower() for word in words)


UNAVAILABLE = events.Failed("PROVIDER_UNAVAILABLE", "The model provider cannot be reached. Try again later.")
RATE_LIMITED = events.Failed(
    "PROVIDER_RATE_LIMITED", "The model provider limits how often it may be called. Try again later."
)
_UNAUTHENTICATED = events.Failed(
    "PROVIDER_UNAUTHENTICATED", "The model provider refused the key. Set a valid one, then apply the runtime."
)
_UNKNOWN_MODEL = events.Failed("MODEL_NOT_FOUND", "The model provider does not know this model. Choose another.")
_BAD_RESPONSE = events.Failed("PROVIDER_BAD_RESPONSE", "The model provider sent an answer that cannot be read.")
_BY_STATUS = {401: _UNAUTHENTICATED, 403: _UNAUTHENTICATED, 404: _UNKNOWN_MODEL, 408: UNAVAILABLE, 429: RATE_LIMITED}
_BY_NAME = {
    "ProviderAuthError": _UNAUTHENTICATED,
    "ContextOverflowError": events.Failed(
        "AGENT_ERROR", "The conversation is longer than the model can read. Start a new session."
    ),
    "MessageOutputLengthError": events.Failed("AGENT_ERROR", "The answer is longer than the model may write."),
}
_BY_WORDS = {
    "Model not found": _UNKNOWN_MODEL,
    "ProviderModelNotFound": _UNKNOWN_MODEL,
    "JSON parsing failed": _BAD_RESPONSE,
    "Type validation failed": _BAD_RESPONSE,
    "Invalid JSON response": _BAD_RESPONSE,
}
_SERVER_ERRORS = range(500, 600)


def failure(error: said_by.AgentError) -> events.Failed:
    """An error of opencode as the end of a turn. Nothing of the provider's answer but its status is told."""
    status = error.data.status_code or 0
    known = _BY_NAME.get(error.name) or _BY_STATUS.get(status)
    known = known or next((failed for words, failed in _BY_WORDS.items() if words in error.data.message), None)
    if known:
        return known
    if status in _SERVER_ERRORS:
        return UNAVAILABLE
    if status:
        return events.Failed("AGENT_ERROR", f"The model provider refused the request with HTTP status {status}.")
    return events.Failed("AGENT_ERROR", "The agent stopped with an error.")
