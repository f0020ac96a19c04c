"""`oiab login`, `oiab logout` and `oiab whoami`."""

# ruff: noqa: D301 - the mark \b keeps the lines after it as they are

import asyncio
import os
import platform
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from gateways.chat.cli.running import fail, pages, print_json, run, tell
from gateways.chat.cli.table import print_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orginabox_sdk.orginabox.api.v1 import GetMeResponse, Permissions, SignInRecord, TokenPair, User

    from gateways.chat.place import Place
    from gateways.sdk import Client

USAGE = 2
FAILED = 1
TOKEN_VARIABLE = "OIAB_TOKEN"  # noqa: S105 - the name of a variable
PASSWORD_VARIABLE = "OIAB_PASSWORD"  # noqa: S105 - the name of a variable
SLOWER_BY = 5.0

app = typer.Typer()


@app.command()
def login(
    password: Annotated[bool, typer.Option("--password", help="Sign in with a handle and a password, here.")] = False,
    token: Annotated[bool, typer.Option("--token", help="Use an API token instead of a sign-in.")] = False,
    handle: Annotated[str, typer.Option("--handle", "-u", metavar="HANDLE", help="Who you are.")] = "",
    tenant: Annotated[str, typer.Option("--tenant", metavar="SLUG", help="Your organisation on the box.")] = "",
) -> None:
    """Sign in. What you may do then is what your roles say, until `oiab logout`.

    Without an option it shows a page to open in a browser, and waits until you have said yes there. The password and
    the token are asked for and not shown; or put them into OIAB_PASSWORD or OIAB_TOKEN. They are never an argument:
    those can be seen by others on the machine.

    \b
      oiab login
      oiab login --password --handle ada
      oiab login --token
      OIAB_URL=https://box.example oiab login
    """
    if password and token:
        raise typer.BadParameter("say --password or --token, not both")
    if token:
        text = _secret("API token", TOKEN_VARIABLE)
        run(lambda client, place: _use_token(client, place, text), anonymous=True)
        return
    if not password:
        run(_by_browser, anonymous=True)
        return
    who = handle or _asked("Handle", "--handle")
    secret = _secret("Password", PASSWORD_VARIABLE)

    async def main(client: "Client", place: "Place") -> None:
        from orginabox_sdk.orginabox.api.v1 import SignInRequest

        request = SignInRequest(handle=who, password=secret, tenant=tenant, device=_device())
        answer = await client.auth.sign_in(request)
        _keep(place, answer.tokens, answer.user)

    run(main, anonymous=True)


@app.command()
def logout(
    everywhere: Annotated[
        bool, typer.Option("--everywhere", help="End every sign-in of yours, on every device. API tokens stay.")
    ] = False,
) -> None:
    """Sign out: the box ends the sign-in at once, and this terminal forgets it.

    \b
      oiab logout
      oiab logout --everywhere
    """

    async def main(client: "Client", place: "Place") -> None:
        from orginabox_sdk.orginabox.api.v1 import SignOutRequest

        from gateways.sdk import CredentialsFile, Unauthenticated

        if not place.signed_in and not everywhere:
            tell(f"You are not signed in to {place.url}.")
            return
        ended = 0
        try:
            ended = (await client.auth.sign_out(SignOutRequest(everywhere=everywhere))).sign_ins
        except Unauthenticated:
            if not place.signed_in:
                raise  # there was nothing here to forget either
        if place.signed_in:
            CredentialsFile(place.credentials).put(place.url, None)
        tell(f"Signed out: {ended} sign-ins ended." if everywhere else "Signed out.")

    run(main)


@app.command()
def whoami(
    sign_ins: Annotated[bool, typer.Option("--sign-ins", help="List your sign-ins that hold, too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a program.")] = False,
) -> None:
    """Say who you are to the box, and what you may do with what you came with.

    \b
      oiab whoami
      oiab whoami --sign-ins
    """

    async def main(client: "Client", place: "Place") -> None:
        from orginabox_sdk.orginabox.api.v1 import GetMeRequest

        found = await client.auth.get_me(GetMeRequest())
        if as_json:
            print_json(found)
            return
        for name, value in _details(found, place):
            typer.echo(f"{name:<9}{value}")
        if sign_ins:
            rows = [_row(each) for each in await _sign_ins(client)]
            print_table(("id", "device", "from", "by", "since", "renewed"), rows)

    run(main)


def permission_names(permissions: "Permissions | None") -> list[str]:
    """The names of the flags that are set, such as `agents.run`."""
    from gateways.chat.jsonform import plain

    if permissions is None:
        return []
    return sorted(
        f"{group}.{_snake(name)}"
        for group, values in plain(permissions).items()
        if isinstance(values, dict)
        for name, value in values.items()
        if value is True
    )


async def _by_browser(client: "Client", place: "Place") -> None:
    from orginabox_sdk.orginabox.api.v1 import PollDeviceSignInRequest, StartDeviceSignInRequest

    from gateways.sdk import ApiError

    started = await client.auth.start_device_sign_in(StartDeviceSignInRequest(device=_device()))
    tell(f"Open {started.verification_uri_complete}")
    tell(f"and say yes to the code {started.user_code}. Waiting…")
    pause = started.interval.total_seconds() if started.interval else SLOWER_BY
    while True:
        await asyncio.sleep(pause)
        try:
            answer = await client.auth.poll_device_sign_in(PollDeviceSignInRequest(device_code=started.device_code))
        except ApiError as error:
            if error.reason == "DEVICE_SIGN_IN_SLOW_DOWN":
                pause += SLOWER_BY
            elif error.reason != "DEVICE_SIGN_IN_PENDING" and not error.passing:
                raise
            continue
        _keep(place, answer.tokens, answer.user)
        return


async def _use_token(_: "Client", place: "Place", token: str) -> None:
    """Keep an API token, if it is one."""
    from orginabox_sdk.orginabox.api.v1 import GetMeRequest

    from gateways.sdk import Client, CredentialsFile, SignedIn

    async with Client(place.url, api_key=token) as client:
        found = await client.auth.get_me(GetMeRequest())
    handle = found.user.handle if found.user else ""
    CredentialsFile(place.credentials).put(place.url, SignedIn(handle, token))
    tell(f"This terminal uses the API token of {handle} at {place.url}.")


def _keep(place: "Place", tokens: "TokenPair | None", user: "User | None") -> None:
    from gateways.sdk import CredentialsFile, SignedIn

    if tokens is None or user is None:
        fail("The box answered without tokens.", FAILED)
        return
    CredentialsFile(place.credentials).put(place.url, SignedIn.of(tokens, user.handle))
    tell(f"Signed in to {place.url} as {user.handle}. Roles: {', '.join(user.roles) or 'none'}.")


async def _sign_ins(client: "Client") -> "list[SignInRecord]":
    from orginabox_sdk.orginabox.api.v1 import ListSignInsRequest

    async def fetch(token: str, size: int) -> "tuple[Sequence[SignInRecord], str]":
        page = await client.auth.list_sign_ins(ListSignInsRequest(page_size=size, page_token=token))
        return page.sign_ins, page.next_page_token

    return [each async for each in pages(fetch, 0)]


def _details(found: "GetMeResponse", place: "Place") -> list[tuple[str, str]]:
    user, permissions = found.user, found.permissions
    lines = [("box", place.url), ("tenant", found.tenant_name)]
    if user is not None:
        lines += [("user", user.handle), ("roles", ", ".join(user.roles) or "none")]
    lines.append(("with", "a sign-in of this terminal" if place.signed_in else place.key_source))
    lines.append(("may", ", ".join(permission_names(permissions)) or "nothing"))
    tools = permissions.tools if permissions else None
    if tools is not None and tools.denied:
        lines.append(("not", f"the tools {', '.join(tools.denied)}"))
    return lines


def _row(found: "SignInRecord") -> tuple[str, ...]:
    from gateways.chat.words import ago, one_line

    name = f"{one_line(found.device, 40) or '-'}{' (this one)' if found.current else ''}"
    by = found.identity_provider or "password"
    return found.sign_in_id, name, found.ip_address or "-", by, ago(found.create_time), ago(found.refresh_time)


def _device() -> str:
    return f"oiab on {platform.node() or 'a machine without a name'}"[:200]


def _secret(label: str, variable: str) -> str:
    """A secret from the environment, else from the person at the terminal, unseen."""
    if found := os.environ.get(variable, "").strip():
        return found
    if not sys.stdin.isatty():
        fail(f"There is no terminal to ask at. Put it into {variable}.", USAGE)
    return str(typer.prompt(label, hide_input=True, err=True)).strip()


def _asked(label: str, option: str) -> str:
    if not sys.stdin.isatty():
        raise typer.BadParameter("it is needed", param_hint=option)
    return str(typer.prompt(label, err=True)).strip()


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)
