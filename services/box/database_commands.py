"""The commands for a PostgreSQL of yours: `oiab database migrate | roles | login`."""

import os
import sys
from typing import Annotated

import typer
from rich.console import Console

from services.box import view
from services.box.errors import BoxError
from services.box.home import Home
from services.box.roles import Logins, external_logins
from services.box.settings import read_settings

app = typer.Typer(
    no_args_is_help=True,
    help="Prepare a PostgreSQL of yours. The embedded one is prepared by `oiab up`.",
    rich_markup_mode="rich",
)
out = Console()


class NoSuchDatabase(BoxError):
    """There is no database that the command is for."""


@app.command(epilog="Exit codes: 0 it is up to date; 1 it cannot be brought up to date.")
def migrate() -> None:
    """Make the logins of the services and bring their tables up to date, and start nothing.

    `oiab up` does this by itself. The command is for where something else starts the services: they change no table.
    """
    from services.box.postgres import prepare_external

    with view.said_plainly():
        prepare_external(_logins())
        out.print("the database is up to date")


@app.command(epilog="Exit codes: 0 it was printed; 1 there is no database of yours.")
def roles() -> None:
    """Print what an administrator runs once where the role in OIAB_DATABASE_URL may not make roles.

    It makes two logins for each service. Their passwords are not in it, only what the server needs to check them.
    """
    with view.said_plainly():
        sys.stdout.write(_logins().script())


@app.command(epilog="Exit codes: 0 it was printed; 1 there is no database of yours, or no such service.")
def login(service: Annotated[str, typer.Argument(help="The service, such as queue.")]) -> None:
    """Print the settings by which a service finds its tables, for one that runs elsewhere. They hold passwords."""
    with view.said_plainly():
        told = _logins().environment(service)
        if not told:
            raise NoSuchDatabase(f"{service} is not a service that has tables")
        for name, value in told.items():
            sys.stdout.write(f"{name}={value}\n")


def _logins() -> Logins:
    home = Home.locate(os.environ)
    home.create()
    url = read_settings(home).database_url
    if url is None:
        raise NoSuchDatabase(
            "this is for a database of yours: set OIAB_DATABASE_URL; `oiab up` prepares the embedded one"
        )
    return external_logins(home, url.get_secret_value())
