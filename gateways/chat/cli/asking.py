"""`oiab ask` and `oiab chat`."""

# ruff: noqa: D301 - the mark \b keeps the lines after it as they are

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from gateways.chat.cli.running import run

if TYPE_CHECKING:
    from orginabox_sdk.orginabox.runtime.v1 import Model

    from gateways.chat.place import Place
    from gateways.sdk import Client

SessionOption = Annotated[str, typer.Option("--session", "-s", metavar="ID", help="The session to speak in.")]
ModelOption = Annotated[
    str, typer.Option("--model", "-m", metavar="PROVIDER/MODEL", help="The model; `oiab runtime status` lists them.")
]


app = typer.Typer()


@app.command()
def ask(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What to say. `-` reads it from the standard input.")],
    session: SessionOption = "",
    model: ModelOption = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Permit whatever the agent asks for.")] = False,
    steer: Annotated[bool, typer.Option("--steer", help="Say it into the turn that runs in the session.")] = False,
    interrupt: Annotated[
        bool, typer.Option("--interrupt", help="Abort the turn that runs in the session, and be the next.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print every event of the turn as a line of JSON.")] = False,
) -> None:
    """Ask the agent once. The answer goes to stdout as it comes; tools and all else go to stderr.

    Without --session it is a new session. Ctrl-C aborts the turn. Where there is no terminal to ask at, what needs a
    permission is refused unless --yes is given. While a turn runs in the session, it waits in line, unless --steer or
    --interrupt is given.

    \b
      oiab ask "What is in the workspace?"
      oiab ask --session 0198... "And how large is it?"
      git diff | oiab ask - --yes > review.md
    """
    if steer and interrupt:
        raise typer.BadParameter("say --steer or --interrupt, not both")
    if (steer or interrupt) and not session:
        raise typer.BadParameter("say which session, with --session: a new one has no turn that runs")
    from orginabox_sdk.orginabox.api.v1 import BusyPolicy

    from gateways.chat.ask import Question
    from gateways.chat.ask import ask as ask_once

    policy = BusyPolicy.STEER if steer else BusyPolicy.INTERRUPT if interrupt else BusyPolicy.UNSPECIFIED
    said = sys.stdin.read() if text == "-" else text
    if not said.strip():
        raise typer.BadParameter("there is nothing to say", param_hint="TEXT")
    question = Question(said, session, parse_model(model), as_json, yes, policy)

    async def main(client: "Client", _: "Place") -> int:
        return await ask_once(client, question)

    run(main)


@app.command()
def chat(
    session: SessionOption = "",
    resume: Annotated[bool, typer.Option("--continue", "-c", help="Go on with the last session.")] = False,
    model: ModelOption = "",
) -> None:
    """Talk with the agent.

    Enter sends, Alt-Enter makes a new line. What you send while the agent works waits in line: /inbox lists it, /steer
    says something into the turn that runs, /interrupt stops it for something else. Ctrl-C aborts the turn, Ctrl-D
    leaves. /help shows the rest.

    \b
      oiab chat
      oiab chat --continue
    """
    if session and resume:
        raise typer.BadParameter("say --session or --continue, not both")
    if not (sys.stdin.isatty() and sys.stdout.isatty()) or os.environ.get("TERM") in {"dumb", "unknown"}:
        raise typer.BadParameter('a chat needs a terminal; without one: oiab ask "..."')
    from gateways.chat.app import Start, talk

    start = Start(session_id=session, resume=resume, model=parse_model(model))

    async def main(client: "Client", place: "Place") -> int:
        return await talk(client, place, start)

    run(main)


def parse_model(text: str) -> "Model | None":
    """The model that `provider/model` names, or None for an empty text."""
    if not text:
        return None
    from orginabox_sdk.orginabox.runtime.v1 import Model

    provider, slash, name = text.partition("/")
    if not (provider and slash and name):
        raise typer.BadParameter(f"{text} should look like anthropic/claude-sonnet-4-5", param_hint="--model")
    return Model(provider_id=provider, model_id=name)
