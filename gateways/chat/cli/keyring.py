"""`oiab keyring`: what the secrets in the database are sealed with."""

from typing import TYPE_CHECKING, Annotated

import typer

from gateways.chat.cli.running import print_json, run, tell
from gateways.chat.cli.table import print_table

if TYPE_CHECKING:
    from orginabox_sdk.orginabox.runtime.v1 import DataKey, Keyring, KeyringRewrap, KeyringRotation

    from gateways.chat.place import Place
    from gateways.sdk import Client

WAIT_SECONDS = 120.0
HELP = """
What the secrets in the database are sealed with.

\b
  oiab keyring status
  oiab keyring rotate
  oiab keyring rewrap
"""

app = typer.Typer(no_args_is_help=True, help=HELP, rich_markup_mode=None)

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for a program.")]


@app.command()
def status(as_json: JsonOption = False) -> None:
    """Tell where the master key is, which data keys there are, and what is left to do."""

    async def main(client: "Client", _: "Place") -> None:
        found = (await client.keyring.get_keyring_status()).keyrings
        if as_json:
            print_json(found)
            return
        for keyring in found:
            _show(keyring)

    run(main)


@app.command()
def rotate(as_json: JsonOption = False) -> None:
    """Make new data keys and seal every secret with them. Everything goes on meanwhile.

    A rotation that was cut is finished instead. Old keys are destroyed when nothing is sealed with them any more.
    """

    async def main(client: "Client", _: "Place") -> int:
        done = (await client.keyring.rotate_data_keys(timeout=WAIT_SECONDS)).rotations
        if as_json:
            print_json(done)
        else:
            for each in done:
                _tell_rotation(each)
        return 1 if any(each.unreadable for each in done) else 0

    run(main)


@app.command()
def rewrap(as_json: JsonOption = False) -> None:
    """Wrap all data keys with the master key of today: after a new version of it, or a move to another place."""

    async def main(client: "Client", _: "Place") -> int:
        done = (await client.keyring.rewrap_data_keys(timeout=WAIT_SECONDS)).rewraps
        if as_json:
            print_json(done)
        else:
            for each in done:
                _tell_rewrap(each)
        return 1 if any(each.unreadable for each in done) else 0

    run(main)


def _show(keyring: "Keyring") -> None:
    typer.echo(f"{keyring.room:<12}  {keyring.master_key_id or keyring.backend}")
    print_table(
        ("data key", "state", "secrets", "made", "under"),
        [_row(key, "as above" if key.master_key_id == keyring.master_key_id else "") for key in keyring.data_keys],
    )
    if keyring.trouble:
        tell(f"{keyring.room}: {keyring.trouble}. What is in memory goes on.", fg="yellow")
    if keyring.secrets_to_reseal:
        tell(
            f"{keyring.secrets_to_reseal} secrets are not sealed with the active key: oiab keyring rotate", fg="yellow"
        )
    if keyring.data_keys_to_rewrap:
        tell(f"{keyring.data_keys_to_rewrap} data keys are under another master key: oiab keyring rewrap", fg="yellow")


def _row(key: "DataKey", under: str) -> tuple[str, ...]:
    from gateways.chat.words import ago

    state = str(key.state).lower()
    return key.key_id, state, str(key.secrets), ago(key.create_time), under or key.master_key_id


def _tell_rotation(done: "KeyringRotation") -> None:
    begun = "Finished a rotation that was cut" if done.resumed else "Rotated"
    tell(f"{done.room}: {begun}. {done.resealed} secrets sealed with {done.key_id}, {done.destroyed} keys destroyed.")
    if done.unreadable:
        tell(f"{done.room}: {done.unreadable} secrets cannot be opened. Set them again.", fg="red")


def _tell_rewrap(done: "KeyringRewrap") -> None:
    tell(f"{done.room}: {done.rewrapped} data keys wrapped by {done.master_key_id}.")
    if done.unreadable:
        what_to_do = "Name their master key in OIAB_KEYRING_PREVIOUS."
        tell(f"{done.room}: {done.unreadable} data keys cannot be opened. {what_to_do}", fg="red")
