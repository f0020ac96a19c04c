"""`oiab sessions`: list, show, rename, delete."""

from typing import TYPE_CHECKING, Annotated

import typer

from gateways.chat.cli.running import pages, print_json, run, tell
from gateways.chat.cli.table import print_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orginabox_sdk.orginabox.api.v1 import Message, Session

    from gateways.chat.place import Place
    from gateways.sdk import Client

EMPTY = 'No sessions yet. Say something: oiab ask "Say hello"'

app = typer.Typer(no_args_is_help=True, help="Your conversations with the agent.", rich_markup_mode=None)

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="The session; `oiab sessions list` shows the ids.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for a program.")]


@app.command("list")
def list_sessions(
    limit: Annotated[int, typer.Option("--limit", "-n", min=0, help="How many at most; 0 for all.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """List your sessions, the last used first."""

    async def main(client: "Client", _: "Place") -> None:
        found = await sessions(client, limit)
        if as_json:
            print_json(found)
        elif not found:
            tell(EMPTY)
        else:
            print_table(("id", "title", "last used"), [_row(session) for session in found])

    run(main)


@app.command()
def show(session_id: IdArgument, as_json: JsonOption = False) -> None:
    """Print what was said in a session."""

    async def main(client: "Client", _: "Place") -> None:
        said = await messages(client, session_id)
        if as_json:
            print_json(said)
            return
        from gateways.chat.history import plain_history

        for line in plain_history(said):
            typer.echo(line)

    run(main)


@app.command()
def rename(session_id: IdArgument, title: Annotated[str, typer.Argument(help="Its new title.")]) -> None:
    """Give a session another title."""

    async def main(client: "Client", _: "Place") -> None:
        from orginabox_sdk.orginabox.api.v1 import UpdateSessionRequest

        await client.sessions.update_session(UpdateSessionRequest(session_id=session_id, title=title))
        tell("Renamed.")

    run(main)


@app.command()
def delete(
    session_id: IdArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete a session with all that was said in it."""
    if not yes:
        typer.confirm("Delete the session with all that was said in it?", abort=True, err=True)

    async def main(client: "Client", _: "Place") -> None:
        from orginabox_sdk.orginabox.api.v1 import DeleteSessionRequest

        await client.sessions.delete_session(DeleteSessionRequest(session_id=session_id))
        tell("Deleted.")

    run(main)


async def sessions(client: "Client", limit: int) -> "list[Session]":
    """The sessions last used."""
    from orginabox_sdk.orginabox.api.v1 import ListSessionsRequest

    async def fetch(token: str, size: int) -> "tuple[Sequence[Session], str]":
        page = await client.sessions.list_sessions(ListSessionsRequest(page_size=size, page_token=token))
        return page.sessions, page.next_page_token

    return [session async for session in pages(fetch, limit)]


async def messages(client: "Client", session_id: str) -> "list[Message]":
    """All that was said in a session."""
    from orginabox_sdk.orginabox.api.v1 import ListMessagesRequest

    async def fetch(token: str, size: int) -> "tuple[Sequence[Message], str]":
        request = ListMessagesRequest(session_id=session_id, page_size=size, page_token=token)
        page = await client.sessions.list_messages(request)
        return page.messages, page.next_page_token

    return [message async for message in pages(fetch, 0)]


def _row(session: "Session") -> tuple[str, str, str]:
    from gateways.chat.words import ago, one_line

    when = "running" if session.active_turn_id else ago(session.update_time)
    return session.session_id, one_line(session.title or "(untitled)", 40), when
