"""The command line as a whole."""

from typing import Annotated

import typer

from gateways.chat.cli import (
    asking,
    audit,
    jobs,
    keyring,
    provider,
    queue,
    role,
    runtime,
    session,
    signin,
    sso,
    tenant,
    token,
    user,
)

HELP = """
Org in a Box: an AI agent for every employee, sandboxed, durable and on record, on one box you own.

Start it, talk to it, and give it a better model:

\b
  oiab up --detach
  oiab ask "Say hello"
  oiab chat
  oiab provider add anthropic
  oiab runtime apply

\b
OIAB_HOME          where everything is kept (~/.orginabox)
OIAB_PORT          the port of the box on this machine (8787)
OIAB_URL           where the box is, when it is elsewhere
ORGINABOX_API_KEY  the key that opens it, when it is not in the home; people sign in instead: oiab login
"""

EXIT_CODES = "Exit codes: 0 done; 1 failed; 2 wrong usage; 3 the box does not answer; 4 wrong key; 130 aborted."


def build() -> typer.Typer:
    """The command line with every command."""
    app = typer.Typer(
        name="oiab",
        help=HELP,
        epilog=EXIT_CODES,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    app.add_typer(_box())
    app.add_typer(asking.app)
    app.add_typer(signin.app)
    app.add_typer(session.app, name="sessions")
    app.add_typer(user.app, name="user")
    app.add_typer(role.app, name="role")
    app.add_typer(token.app, name="token")
    app.add_typer(tenant.app, name="tenant")
    app.add_typer(sso.app, name="sso")
    app.add_typer(provider.app, name="provider")
    app.add_typer(runtime.app, name="runtime")
    app.add_typer(jobs.app, name="jobs")
    app.add_typer(queue.app, name="queue")
    app.add_typer(keyring.app, name="keyring")
    app.add_typer(audit.app, name="audit")
    return app


def _say_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"oiab {version('orginabox')}")
        raise typer.Exit


def _options(
    _: Annotated[
        bool, typer.Option("--version", help="Say which version this is.", is_eager=True, callback=_say_version)
    ] = False,
) -> None:
    """The options of `oiab` itself."""


def _box() -> typer.Typer:
    """`up`, `down`, `status`, `logs` and `doctor`."""
    from services.box.commands import app as box

    return box
