"""How a command runs: with a client, to its end, and with its failures said plainly."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import typer

if TYPE_CHECKING:
    from betterproto2 import Message

    from gateways.chat.place import Place
    from gateways.sdk import Client

T = TypeVar("T")
USER_AGENT = "oiab"
CHANNEL = {"x-oiab-channel": "cli"}


def run(main: "Callable[[Client, Place], Awaitable[int | None]]", *, anonymous: bool = False) -> None:
    """Run a command with a client of the box, and end with its exit code.

    Args:
        main: The command.
        anonymous: Whether it calls as nobody, because it is about to sign in.
    """
    from gateways.chat.place import Place
    from gateways.chat.refusals import Exit, refusal
    from gateways.sdk import ApiError, Client, CredentialsFile, SharedSignIn

    located = Place.locate()
    place = replace(located, key="", signed_in=False) if anonymous else located

    async def connected() -> int | None:
        bearer = SharedSignIn(CredentialsFile(place.credentials), place.url) if place.signed_in else None
        options: Any = {"user_agent": USER_AGENT, "metadata": CHANNEL}
        async with Client(place.url, api_key=place.key, bearer=bearer, **options) as client:
            return await main(client, place)

    try:
        code = asyncio.run(connected())
    except ApiError as error:
        told = refusal(error, place)
        fail(told.text, told.code)
    except KeyboardInterrupt:
        raise typer.Exit(Exit.ABORTED) from None
    except ValueError as error:  # an address that is none
        fail(str(error), Exit.USAGE)
    if code:
        raise typer.Exit(code)


def fail(text: str, code: int) -> None:
    """Say what went wrong and end."""
    tell(text, fg="red")
    raise typer.Exit(code)


def tell(text: str, fg: str | None = None) -> None:
    """Say something beside the output, on stderr."""
    typer.secho(text, err=True, fg=fg)


def print_json(messages: "Message | Sequence[Message]") -> None:
    """Print one message or several for a program."""
    from betterproto2 import Message

    from gateways.chat.jsonform import plain

    value = plain(messages) if isinstance(messages, Message) else [plain(message) for message in messages]
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


async def pages(fetch: "Callable[[str, int], Awaitable[tuple[Sequence[T], str]]]", limit: int) -> AsyncIterator[T]:
    """The items of a list, page by page, up to a limit. 0 means all."""
    token, left = "", limit or -1
    while left:
        items, token = await fetch(token, max(0, left))
        for item in items[: left if left > 0 else None]:
            yield item
            left -= 1
        if not token:
            return
