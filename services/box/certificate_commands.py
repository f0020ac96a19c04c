"""The commands for the certificates of the mesh: `oiab certificates list | issue | renew-authority`."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from services.box import view
from services.box.home import Home, HomeBusy

app = typer.Typer(
    no_args_is_help=True,
    help="The certificates by which the parts of the box know each other.",
    rich_markup_mode="rich",
)
out = Console()


@app.command("list", epilog="Exit codes: 0 all are good; 1 one has expired, or there is none.")
def show() -> None:
    """Show the certificates of this installation, and until when each is good."""
    from services.box.certificates import open_authority, standings

    with view.said_plainly():
        home = Home.locate(os.environ)
        authority = open_authority(home)
        out.print(f"installation {authority.installation}", highlight=False)
        out.print(f"{'authority':<10} until {authority.expires:%Y-%m-%d}", highlight=False)
        fine = True
        for standing in standings(home):
            fine &= standing.good
            out.print(f"{standing.name:<10} {standing}", highlight=False)
        if not fine:
            raise typer.Exit(1)


@app.command(epilog="Exit codes: 0 it was made; 1 it could not be.")
def issue(
    name: Annotated[str, typer.Argument(help="The service: api, audit, queue, runtime, sandbox, worker or envoy.")],
    folder: Annotated[Path, typer.Option("--out", help="The folder for cert.pem, key.pem and ca.pem.")],
    hours: Annotated[float, typer.Option(min=0.01, help="How long it is good.")] = 24.0,
) -> None:
    """Make a certificate for a process of this installation that runs elsewhere.

    Run it again before half of the time is over: the process takes the new one without a restart. Whoever has the
    files is that service for the mesh, so keep them as you keep a password.
    """
    from services.box.certificates import CertificateRefused, open_authority
    from services.kit.certificates import CertificateUnusable, write_issued

    with view.said_plainly():
        authority = open_authority(Home.locate(os.environ))
        try:
            write_issued(folder, authority.issue(name, timedelta(hours=hours)))
        except (CertificateUnusable, OSError) as error:
            raise CertificateRefused(str(error)) from None
        until = datetime.now(UTC) + timedelta(hours=hours)
        out.print(f"{folder} holds the certificate of {name} until {until:%Y-%m-%d %H:%M} UTC", highlight=False)


@app.command("renew-authority", epilog="Exit codes: 0 there is a new one; 1 the box runs, or it could not be made.")
def renew_authority() -> None:
    """Begin with a new certificate authority, when the old one is lost, expired or was seen by others.

    The box has to be stopped. Certificates of before are worth nothing afterwards: processes that run elsewhere need
    new ones.
    """
    from services.box.certificates import renew_authority as renew

    with view.said_plainly():
        home = Home.locate(os.environ)
        home.create()
        try:
            with home.lock():
                authority = renew(home)
        except HomeBusy:
            raise HomeBusy("the box runs; stop it first with `oiab down`") from None
        out.print(f"a new authority, until {authority.expires:%Y-%m-%d}; start the box with `oiab up`", highlight=False)
