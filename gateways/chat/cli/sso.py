"""`oiab sso`: where people of your organisation sign in, and how a directory brings them."""

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from gateways.chat.cli.running import pages, print_json, run, tell
from gateways.chat.cli.table import print_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orginabox_sdk.orginabox.api.v1 import IdentityProvider

    from gateways.chat.place import Place
    from gateways.sdk import Client

SECRET = "OIAB_SSO_CLIENT_SECRET"  # noqa: S105 - the name of a variable

HELP = """
Sign-in by an identity provider of your organisation (OpenID Connect), and the token by which a directory brings users
and groups (SCIM 2.0).

\b
  oiab sso put entra --issuer https://login.microsoftonline.com/<directory>/v2.0 --client-id ID --directory-id DIRECTORY
  oiab sso list
  oiab sso scim-token
"""

app = typer.Typer(no_args_is_help=True, help=HELP, rich_markup_mode=None)


@app.command()
def put(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its id in addresses, such as entra.")],
    issuer: Annotated[str, typer.Option("--issuer", metavar="URL", help="Its issuer.")],
    client_id: Annotated[str, typer.Option("--client-id", metavar="ID", help="The id by which it knows this box.")],
    display_name: Annotated[str, typer.Option("--display-name", help="The name on the button.")] = "",
    scopes: Annotated[
        list[str] | None,
        typer.Option("--scope", metavar="SCOPE", help="What to ask for besides openid; say it again for more."),
    ] = None,
    groups_claim: Annotated[str, typer.Option("--groups-claim", help="The claim that lists groups.")] = "",
    directory_id: Annotated[
        str, typer.Option("--directory-id", metavar="ID", help="The directory (tid) of Entra ID.")
    ] = "",
    create_users: Annotated[
        bool, typer.Option("--create-users", help="Add who signs in for the first time, with the default role.")
    ] = False,
    public: Annotated[bool, typer.Option("--public", help="The client has no secret.")] = False,
) -> None:
    """Add an identity provider, or replace it. It is asked for its discovery document first.

    The client's secret is asked for, and not shown, or taken from OIAB_SSO_CLIENT_SECRET. Enter alone keeps the one
    before.
    """
    secret = "" if public else _secret()

    async def main(client: "Client", _: "Place") -> None:
        from orginabox_sdk.orginabox.api.v1 import IdentityProvider, PutIdentityProviderRequest

        provider = IdentityProvider(
            identity_provider_id=name,
            display_name=display_name,
            issuer=issuer,
            client_id=client_id,
            client_secret=secret,
            scopes=scopes or [],
            groups_claim=groups_claim,
            directory_id=directory_id,
            create_users=create_users,
        )
        answer = await client.identity_providers.put_identity_provider(
            PutIdentityProviderRequest(identity_provider=provider)
        )
        typer.echo(answer.redirect_uri)
        tell("This is the address to which it sends people back; register it there.")

    run(main)


@app.command("list")
def list_providers(as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a program.")] = False) -> None:
    """List the identity providers. Secrets are never shown."""

    async def main(client: "Client", _: "Place") -> None:
        from orginabox_sdk.orginabox.api.v1 import ListIdentityProvidersRequest

        async def fetch(token: str, size: int) -> "tuple[Sequence[IdentityProvider], str]":
            request = ListIdentityProvidersRequest(page_size=size, page_token=token)
            page = await client.identity_providers.list_identity_providers(request)
            return page.identity_providers, page.next_page_token

        found = [provider async for provider in pages(fetch, 0)]
        if as_json:
            print_json(found)
        elif not found:
            tell("No identity providers yet. Add one: oiab sso put --help")
        else:
            print_table(("name", "shown as", "issuer", "client", "adds users"), [_row(each) for each in found])

    run(main)


@app.command()
def delete(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The provider; `oiab sso list` shows them.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove an identity provider. Who signed in by it stays signed in until their sign-in ends."""
    if not yes:
        typer.confirm(f"Remove {name}? Nobody signs in by it any more.", abort=True, err=True)

    async def main(client: "Client", _: "Place") -> None:
        from orginabox_sdk.orginabox.api.v1 import DeleteIdentityProviderRequest

        await client.identity_providers.delete_identity_provider(
            DeleteIdentityProviderRequest(identity_provider_id=name)
        )
        tell(f"Removed {name}.")

    run(main)


@app.command("scim-token")
def scim_token() -> None:
    """Make the token by which a directory brings users and groups, and print it: it is never shown again.

    The token before it opens nothing from then on.
    """

    async def main(client: "Client", _: "Place") -> None:
        from orginabox_sdk.orginabox.api.v1 import RotateScimTokenRequest

        answer = await client.identity_providers.rotate_scim_token(RotateScimTokenRequest())
        typer.echo(answer.token)
        tell(f"Give it to the directory with the address {answer.base_uri}")

    run(main)


def _secret() -> str:
    """The client's secret from the environment, else from the person at the terminal, unseen."""
    if SECRET in os.environ:
        tell(f"With the secret in {SECRET}.")
        return os.environ[SECRET].strip()
    if not sys.stdin.isatty():
        return ""
    label = "Secret of the client (Enter keeps the one before)"
    return str(typer.prompt(label, default="", hide_input=True, show_default=False, err=True)).strip()


def _row(provider: "IdentityProvider") -> tuple[str, ...]:
    return (
        provider.identity_provider_id,
        provider.display_name or provider.identity_provider_id,
        provider.issuer,
        provider.client_id,
        "yes" if provider.create_users else "no",
    )
