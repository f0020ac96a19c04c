"""`oiab user`: the people of your organisation."""

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from gateways.chat.cli.running import fail, pages, print_json, run, tell
from gateways.chat.cli.table import print_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orginabox_sdk.orginabox.api.v1 import User

    from gateways.chat.place import Place
    from gateways.sdk import Client

USAGE = 2
VARIABLE = "OIAB_USER_PASSWORD"
HELP = """
The people of your organisation. Who may do less than somebody cannot change them.

\b
  oiab user add ada --email ada@example.com --role member
  oiab user list
  oiab user roles ada
  oiab user password ada
  oiab user suspend ada
"""

app = typer.Typer(no_args_is_help=True, help=HELP, rich_markup_mode=None)

UserArgument = Annotated[str, typer.Argument(metavar="USER", help="Their handle or id; `oiab user list` shows them.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for a program.")]


@app.command("list")
def list_users(
    limit: Annotated[int, typer.Option("--limit", "-n", min=0, help="How many at most; 0 for all.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """List the users by handle."""

    async def main(client: "Client", _: "Place") -> None:
        from orginabox_sdk.orginabox.api.v1 import ListUsersRequest

        async def fetch(token: str, size: int) -> "tuple[Sequence[User], str]":
            page = await client.users.list_users(ListUsersRequest(page_size=size, page_token=token))
            return page.users, page.next_page_token

        found = [user async for user in pages(fetch, limit)]
        if as_json:
            print_json(found)
        elif not found:
            tell("No users yet. Add one: oiab user add ada")
        else:
            print_table(("handle", "name", "status", "roles", "signs in by", "last"), [_row(user) for user in found])

    run(main)


@app.command()
def add(
    handle: Annotated[str, typer.Argument(metavar="HANDLE", help="The name to sign in with, in small letters.")],
    email: Annotated[str, typer.Option("--email", help="The address of their mail.")] = "",
    name: Annotated[str, typer.Option("--name", help="The name to show.")] = "",
    roles: Annotated[
        list[str] | None, typer.Option("--role", "-r", metavar="ROLE", help="A role; say it again for more.")
    ] = None,
    no_password: Annotated[bool, typer.Option("--no-password", help="Set no password: they sign in by SSO.")] = False,
) -> None:
    """Add a user. Without --role they get the default role of the tenant.

    The password is asked for and not shown; or put it into OIAB_USER_PASSWORD. It has at least 12 characters.
    """
    password = "" if no_password else read_password(handle)

    async def main(client: "Client", _: "Place") -> None:
        from orginabox_sdk.orginabox.api.v1 import CreateUserRequest

        request = CreateUserRequest(
            handle=handle, email=email, display_name=name, password=password, roles=list(roles or ())
        )
        user = (await client.users.create_user(request)).user
        given = ", ".join(user.roles) if user else ""
        tell(f"Added {handle}. Roles: {given or 'none'}. They sign in with: oiab login --password")

    run(main)


@app.command()
def show(user: UserArgument, as_json: JsonOption = False) -> None:
    """Show one user."""

    async def main(client: "Client", _: "Place") -> None:
        from orginabox_sdk.orginabox.api.v1 import GetUserRequest

        found = (await client.users.get_user(GetUserRequest(user_id=user))).user
        if found is None:
            return
        if as_json:
            print_json(found)
            return
        for name, value in _details(found):
            typer.echo(f"{name:<12}{value}")

    run(main)


@app.command()
def suspend(user: UserArgument) -> None:
    """Keep a user out for now. Their sign-ins and API tokens end at once; what is theirs stays."""
    _set_status(user, "SUSPENDED", f"{user} is out. Let them in again: oiab user activate {user}")


@app.command()
def activate(user: UserArgument) -> None:
    """Let a user in again who was suspended or has left."""
    _set_status(user, "ACTIVE", f"{user} may sign in.")


@app.command()
def password(user: UserArgument) -> None:
    """Set the password of a user. It ends their sign-ins, and is asked for as `oiab user add` does."""
    secret = read_password(user)

    async def main(client: "Client", _: "Place") -> None:
        from orginabox_sdk.orginabox.api.v1 import SetPasswordRequest

        await client.users.set_password(SetPasswordRequest(user_id=user, password=secret))
        tell(f"Set the password of {user}.")

    run(main)


@app.command()
def roles(user: UserArgument) -> None:
    """List the roles of a user. `oiab role assign` gives them one."""

    async def main(client: "Client", _: "Place") -> None:
        from orginabox_sdk.orginabox.api.v1 import GetUserRequest

        found = (await client.users.get_user(GetUserRequest(user_id=user))).user
        if found is not None and found.roles:
            typer.echo("\n".join(found.roles))
        else:
            tell(f"{user} has no roles. Give them one: oiab role assign {user} member")

    run(main)


def read_password(handle: str) -> str:
    """A new password from the environment, else from the person at the terminal, twice and unseen."""
    if found := os.environ.get(VARIABLE, "").strip():
        return found
    if not sys.stdin.isatty():
        fail(f"There is no terminal to ask at. Put the password into {VARIABLE}.", USAGE)
    return str(typer.prompt(f"Password of {handle}", hide_input=True, confirmation_prompt=True, err=True))


def _set_status(user: str, status: str, done: str) -> None:
    async def main(client: "Client", _: "Place") -> None:
        from orginabox_sdk.google.protobuf import FieldMask
        from orginabox_sdk.orginabox.api.v1 import UpdateUserRequest, User, UserStatus

        changed = User(user_id=user, status=UserStatus[status])
        await client.users.update_user(UpdateUserRequest(user=changed, update_mask=FieldMask(paths=["status"])))
        tell(done)

    run(main)


def _status(user: "User") -> str:
    return str(user.status.name or "unknown").lower()


def _row(user: "User") -> tuple[str, ...]:
    from gateways.chat.words import ago, one_line

    return (
        user.handle,
        one_line(user.display_name, 40) or "-",
        _status(user),
        ", ".join(user.roles) or "-",
        user.identity_provider or "password",
        ago(user.sign_in_time),
    )


def _details(user: "User") -> list[tuple[str, str]]:
    from gateways.chat.words import ago, clean

    lines = [
        ("id", user.user_id),
        ("handle", user.handle),
        ("name", clean(user.display_name)),
        ("mail", clean(user.email)),
        ("status", _status(user)),
        ("roles", ", ".join(user.roles)),
        ("signs in by", user.identity_provider or "password"),
        ("last", ago(user.sign_in_time)),
        ("added", ago(user.create_time)),
    ]
    return [(name, value) for name, value in lines if value]
