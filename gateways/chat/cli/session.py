"""`oiab sessions`: list, show, rename, policy, delete."""

from enum import StrEnum
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

HELP = """
Your conversations with the agent.

\b
  oiab sessions list                     the last used first
  oiab sessions show ID                  what was said
  oiab sessions rename ID "Accounts"     another title
  oiab sessions policy ID                what a prompt does while a turn runs
  oiab sessions policy ID steer          say it into that turn from now on
  oiab sessions delete ID                remove it, with all that was said
"""


class Policy(StrEnum):
    """What a prompt does that comes while a turn runs."""

    QUEUE = "queue"
    STEER = "steer"
    INTERRUPT = "interrupt"


MEANINGS = {
    Policy.QUEUE: "waits until it has ended",
    Policy.STEER: "goes into it, and the agent reads it at its next step",
    Policy.INTERRUPT: "stops it, and is the next",
}

app = typer.Typer(no_args_is_help=True, help=HELP, rich_markup_mode=None)

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
            print_table(("id", "title", "last used", "when busy"), [_row(session) for session in found])

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
def policy(
    session_id: IdArgument,
    wanted: Annotated[
        Policy | None, typer.Argument(metavar="POLICY", help="What it is from now on; without it, what it is.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show or set what a prompt does while a turn runs.

    queue: it waits until that turn has ended. steer: it goes into that turn, and the agent reads it at its next step.
    interrupt: it stops that turn, and is the next. A prompt can say otherwise: oiab ask --steer, oiab ask --interrupt.
    """

    async def main(client: "Client", _: "Place") -> None:
        from orginabox_sdk.orginabox.api.v1 import BusyPolicy, GetSessionRequest, UpdateSessionRequest

        if wanted is None:
            found = (await client.sessions.get_session(GetSessionRequest(session_id=session_id))).session
        else:
            change = UpdateSessionRequest(session_id=session_id, busy_policy=BusyPolicy[wanted.name])
            found = (await client.sessions.update_session(change)).session
        if found is None:
            return
        if as_json:
            print_json(found)
        else:
            name = policy_name(found)
            typer.echo(name)
            tell(f"What you say while a turn runs {MEANINGS[Policy(name)]}.")

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


def policy_name(session: "Session") -> str:
    """What a prompt does that comes while a turn of the session runs, in a word."""
    name = str(session.busy_policy.name or "").lower()
    return name if name in set(Policy) else Policy.QUEUE.value


def _row(session: "Session") -> tuple[str, str, str, str]:
    from gateways.chat.words import ago, one_line

    when = "running" if session.active_turn_id else ago(session.update_time)
    return session.session_id, one_line(session.title or "(untitled)", 40), when, policy_name(session)
