"""What went wrong, for the person at the terminal: a sentence, what to do about it, and an exit code."""

from dataclasses import dataclass
from enum import IntEnum

import grpc

from gateways.chat.place import Place
from gateways.chat.words import sentence
from gateways.sdk import ApiError, DeadlineExceeded, InvalidArgument, Unauthenticated, Unavailable


class Exit(IntEnum):
    """How a command ended."""

    COMPLETED = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    WRONG_KEY = 4
    ABORTED = 130


@dataclass(frozen=True)
class Refusal:
    """What to tell, and how to end."""

    text: str
    code: Exit


# The contract names the field; whoever typed the command has not heard of fields.
WRONG_IDS = {
    "session_id": "That is no id of a session. List yours: oiab sessions list",
    "job_id": "That is no id of a job. List them: oiab jobs list",
}
REMEDIES = {
    "SESSION_NOT_FOUND": "List yours: oiab sessions list",
    "JOB_NOT_FOUND": "List them: oiab jobs list",
    "JOB_STATE": "See how it stands: oiab jobs show {jobId}",
    "PROVIDER_EXISTS": "Change it: oiab provider update {providerId}. Or give the new one another name: --name",
    "PROVIDER_NOT_FOUND": "List them: oiab provider list",
    "PROVIDER_UNAUTHENTICATED": "Give it a new key: oiab provider update NAME --key, then oiab runtime apply",
    "PROVIDER_UNAVAILABLE": "Look at its address: oiab provider list",
    "MODEL_NOT_FOUND": "See which there are: oiab runtime status",
    "RUNTIME_NOT_APPLIED": "Apply it: oiab runtime apply",
    "KEYRING_MISMATCH": "Give the providers their keys again: oiab provider update NAME --key",
    "KEYRING_UNAVAILABLE": "See how it stands: oiab keyring status",
    "KEYRING_DENIED": "See how it stands: oiab keyring status",
    "SANDBOX_ISOLATION_UNAVAILABLE": "See what this machine lacks: oiab doctor",
    "SANDBOX_START_FAILED": "See why: oiab logs sandbox",
    "PERMISSION_DENIED": "See what you may do: oiab whoami",
    "PERMISSION_ESCALATION": "See what you may do: oiab whoami",
    "USER_NOT_FOUND": "List them: oiab user list",
    "ROLE_NOT_FOUND": "List them: oiab role list",
    "SIGN_IN_NOT_FOUND": "List yours: oiab whoami --sign-ins",
    "API_TOKEN_NOT_FOUND": "List yours: oiab token list",
    "OPERATOR_KEY_REMOTE": "Sign in: oiab login",
    "SERVICE_UNAVAILABLE": "See which part: oiab status",
    "INTERNAL": "Find it in the logs: oiab logs",
}


def refusal(error: ApiError, place: Place) -> Refusal:
    """What an error means at a terminal."""
    if isinstance(error, Unauthenticated):
        return _wrong_key(error, place)
    if not error.reason and isinstance(error, Unavailable | DeadlineExceeded):
        return unreachable(place)
    if not error.reason and error.code is grpc.StatusCode.UNIMPLEMENTED:
        return Refusal(f"What answers at {place.url} is not Org in a Box, or an older one.", Exit.UNREACHABLE)
    if isinstance(error, InvalidArgument) and (told := WRONG_IDS.get(error.message.partition(":")[0])):
        return Refusal(told, Exit.USAGE)
    code = Exit.USAGE if isinstance(error, InvalidArgument) else Exit.FAILED
    if error.reason == "SERVICE_UNAVAILABLE":
        code = Exit.UNREACHABLE
    return Refusal(with_remedy(error.message, error.reason, error.metadata), code)


def unreachable(place: Place) -> Refusal:
    """The box does not answer."""
    what_to_do = "Start it: oiab up" if place.local else "Is OIAB_URL right?"
    return Refusal(f"The box does not answer at {place.url}. {what_to_do}", Exit.UNREACHABLE)


def with_remedy(message: str, reason: str, metadata: dict[str, str] | None = None) -> str:
    """A sentence of the API, and what to do about it."""
    remedy = REMEDIES.get(reason, "")
    for name, value in (metadata or {}).items():
        remedy = remedy.replace(f"{{{name}}}", value)
    return f"{sentence(message)} {remedy}".strip()


def _wrong_key(error: ApiError, place: Place) -> Refusal:
    nobody = not place.key and not place.signed_in
    if error.reason == "CREDENTIALS_REFUSED" or (nobody and error.reason.startswith("TOKEN_")):
        return Refusal(sentence(error.message), Exit.WRONG_KEY)
    if place.signed_in:
        told = f"Your sign-in to {place.url} holds no more. Sign in again: oiab login. Or forget it: oiab logout"
        return Refusal(told, Exit.WRONG_KEY)
    if place.key:
        return Refusal(f"The key in {place.key_source} is wrong for the box at {place.url}.", Exit.WRONG_KEY)
    if place.local:
        told = f"{sentence(error.message)} There is none in {place.home}; is OIAB_HOME the home of this box?"
        return Refusal(told, Exit.WRONG_KEY)
    told = f"The box at {place.url} wants to know who you are. Sign in: oiab login. Or set ORGINABOX_API_KEY."
    return Refusal(told, Exit.WRONG_KEY)
