"""`oiab token`: your API tokens."""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from gateways.chat.cli.running import pages, print_json, run, tell
from gateways.chat.cli.table import print_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orginabox_sdk.orginabox.api.v1 import ApiToken

    from gateways.chat.place import Place
    from gateways.sdk import Client

HELP = """
Your API tokens, for programs that act on your behalf. A token may do what its scopes say, and never more than you.

\b
  oiab token create ci --scope agents.read --scope agents.run --days 30
  oiab token list
  oiab token revoke 0198...
"""

app = typer.Typer(no_args_is_help=True, help=HELP, rich_markup_mode=None)


@app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is for.")],
    scopes: Annotated[
        list[str] | None,
        typer.Option(
            "--scope", "-s", metavar="PERMISSION", help="What it may do, such as agents.run; '*' for all that you may."
        ),
    ] = None,
    days: Annotated[int, typer.Option("--days", min=1, max=366, help="When it ends.")] = 90,
) -> None:
    """Make a token, and print it: it is never shown again. Programs send it as `Authorization: Bearer <token>`."""
    if not scopes:
        raise typer.BadParameter("say what it may do, such as agents.run, or '*' for all that you may", param_hint="-s")

    async def main(client: "Client", _: "Place") -> None:
        from orginabox_sdk.orginabox.api.v1 import CreateApiTokenRequest

        expire = datetime.now(UTC) + timedelta(days=days) - timedelta(minutes=1)
        request = CreateApiTokenRequest(name=name, scopes=list(scopes), expire_time=expire)
        answer = await client.api_tokens.create_api_token(request)
        typer.echo(answer.token)
        tell(f"Keep it: it is not shown again. It ends in {days} days, or with: oiab token revoke ID")

    run(main)


@app.command("list")
def list_tokens(as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a program.")] = False) -> None:
    """List your tokens that hold, newest first."""

    async def main(client: "Client", _: "Place") -> None:
        from orginabox_sdk.orginabox.api.v1 import ListApiTokensRequest

        async def fetch(token: str, size: int) -> "tuple[Sequence[ApiToken], str]":
            page = await client.api_tokens.list_api_tokens(ListApiTokensRequest(page_size=size, page_token=token))
            return page.api_tokens, page.next_page_token

        found = [token async for token in pages(fetch, 0)]
        if as_json:
            print_json(found)
        elif not found:
            tell("You have no API tokens. Make one: oiab token create ci --scope agents.run")
        else:
            print_table(("id", "name", "begins with", "scopes", "used", "ends"), [_row(token) for token in found])

    run(main)


@app.command()
def revoke(
    token_id: Annotated[str, typer.Argument(metavar="ID", help="The token; `oiab token list` shows them.")],
) -> None:
    """End a token at once."""

    async def main(client: "Client", _: "Place") -> None:
        from orginabox_sdk.orginabox.api.v1 import RevokeApiTokenRequest

        await client.api_tokens.revoke_api_token(RevokeApiTokenRequest(api_token_id=token_id))
        tell("It opens nothing any more.")

    run(main)


def _row(token: "ApiToken") -> tuple[str, ...]:
    from gateways.chat.words import ago, one_line

    ends = f"{token.expire_time.astimezone():%Y-%m-%d}" if token.expire_time else "-"
    scopes = ", ".join(token.scopes)
    return token.api_token_id, one_line(token.name, 40), token.prefix, scopes, ago(token.last_use_time), ends
