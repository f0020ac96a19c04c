"""The Python SDK: the generated dataclasses and stubs of the contract, run over grpc.aio.

Example:
    ```python
    from gateways.sdk import Client
    from orginabox_sdk.orginabox.api.v1 import CreateSessionRequest

    async with Client("http://127.0.0.1:8787", api_key=key) as client:
        session = await client.sessions.create_session(CreateSessionRequest(title="Report"))
        async for event in client.ask(session.session_id, "Summarise the report in the workspace"):
            if event.text_delta is not None:
                print(event.text_delta.text, end="", flush=True)
    ```
"""

from gateways.sdk.channel import Bearer, Channel
from gateways.sdk.client import Client, is_steered, is_terminal
from gateways.sdk.errors import (
    Aborted,
    AlreadyExists,
    ApiError,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
)
from gateways.sdk.signed_in import CredentialsFile, SharedSignIn, SignedIn

__all__ = [
    "Aborted",
    "AlreadyExists",
    "ApiError",
    "Bearer",
    "Channel",
    "Client",
    "CredentialsFile",
    "DeadlineExceeded",
    "FailedPrecondition",
    "InvalidArgument",
    "NotFound",
    "PermissionDenied",
    "ResourceExhausted",
    "SharedSignIn",
    "SignedIn",
    "Unauthenticated",
    "Unavailable",
    "is_steered",
    "is_terminal",
]
