"""`oiab audit`: who did what, and the proof of it."""

# ruff: noqa: D301 - the mark \b keeps the lines after it as they are

import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateways.chat.cli.running import pages, print_json, run, tell
from gateways.chat.cli.table import print_table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from orginabox_sdk.orginabox.api.v1 import VerifyAuditLogResponse
    from orginabox_sdk.orginabox.audit.v1 import Checkpoint, ExportFormat, Record

    from gateways.chat.place import Place
    from gateways.sdk import Client

HELP = """
Who did what, and the proof of it.

Every record is sealed in a chain: who changes, removes or adds one behind the log's back is found by name. Without a
command, `oiab audit` lists.

\b
  oiab audit --since 24h
  oiab audit verify
  oiab audit export --format chain --output audit.jsonl
  oiab audit key
"""

app = typer.Typer(help=HELP, rich_markup_mode=None)

ActionOption = Annotated[str, typer.Option("--action", "-a", help="Only this action; `agent.*` for all that begin so.")]
SinceOption = Annotated[
    str, typer.Option("--since", metavar="TIME", help="Only from then on: 30m, 24h, 7d, 2026-01-31.")
]
LimitOption = Annotated[int, typer.Option("--limit", "-n", min=0, help="How many at most; 0 for all.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for a program.")]


class Form(Enum):
    """In which form to export."""

    CSV = "csv"
    OCSF = "ocsf"
    CHAIN = "chain"


FormOption = Annotated[Form, typer.Option("--format", "-f", help="csv, ocsf for a SIEM, or chain for a proof.")]
OutputOption = Annotated[Path | None, typer.Option("--output", "-o", help="The file to write. Default: the terminal.")]


@app.callback(invoke_without_command=True)
def audit(
    context: typer.Context,
    action: ActionOption = "",
    since: SinceOption = "",
    limit: LimitOption = 50,
    as_json: JsonOption = False,
) -> None:
    """Who did what, and the proof of it."""
    if context.invoked_subcommand is None:
        list_records(action, since, limit, as_json)


@app.command("list")
def list_records(
    action: ActionOption = "", since: SinceOption = "", limit: LimitOption = 50, as_json: JsonOption = False
) -> None:
    """List who did what, newest first.

    \b
      oiab audit list --since 24h
      oiab audit list --action 'admin.*' --json
    """
    begin = _time(since)

    async def main(client: "Client", _: "Place") -> None:
        found = await records(client, action, begin, limit)
        if as_json:
            print_json(found)
        elif not found:
            tell("No records fit." if action or since else 'No records yet. Say something: oiab ask "Say hello"')
        else:
            print_table(("time", "action", "target", "by", "way"), [record_row(record) for record in found])

    run(main)


@app.command()
def export(
    form: Annotated[
        Form, typer.Option("--format", "-f", help="csv, ocsf (for a SIEM) or chain (for a proof).")
    ] = Form.CSV,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file to write. Default: the terminal.")
    ] = None,
    action: ActionOption = "",
    since: SinceOption = "",
) -> None:
    """Write out the log, oldest first.

    \b
      oiab audit export > audit.csv
      oiab audit export --format ocsf --since 24h --output events.jsonl
    \b
    The chain proves itself to whoever has the public key, without the box:
      oiab audit export --format chain --output audit.jsonl
      python -m services.audit.verifier audit.jsonl --public-key "$(oiab audit key)" \\
          --checkpoints ~/.orginabox/audit/checkpoints
    """
    begin = _time(since)

    async def main(client: "Client", _: "Place") -> None:
        from orginabox_sdk.orginabox.api.v1 import ExportAuditRecordsRequest

        request = ExportAuditRecordsRequest(format=_form(form), action=action, since=begin)
        written = 0
        file = output.open("wb") if output else sys.stdout.buffer
        try:
            async for piece in client.audit.export_audit_records(request):
                file.write(piece.data)
                written += len(piece.data)
                if output:
                    _progress(f"{written / 1e6:.1f} MB")
            file.flush()
        finally:
            if output:
                file.close()
        if output:
            _progress("")
            tell(f"Wrote {output}: {written} bytes.")

    run(main)


@app.command()
def verify(
    full: Annotated[
        bool, typer.Option("--full", help="Begin at the first record, not where the last one ended.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Verify the chain, the checkpoints, and what was published of them. Exit code 1 when anything is wrong.

    \b
      oiab audit verify
      oiab audit verify --full
    """

    async def main(client: "Client", _: "Place") -> int | None:
        from orginabox_sdk.orginabox.api.v1 import VerifyAuditLogRequest

        report = None
        async for told in client.audit.verify_audit_log(VerifyAuditLogRequest(full=full)):
            if told.done:
                report = told
            elif not as_json:
                _progress(f"{told.records} records")
        _progress("")
        if report is None:
            tell("The verification did not end. Try again.", fg="red")
            return 1
        if as_json:
            print_json(report)
        else:
            _print_report(report, full=full)
        return 1 if report.damages else None

    run(main)


@app.command()
def checkpoints(limit: LimitOption = 20, as_json: JsonOption = False) -> None:
    """List what was signed, newest first.

    \b
      oiab audit checkpoints --limit 1 --json
    """

    async def main(client: "Client", _: "Place") -> None:
        from orginabox_sdk.orginabox.api.v1 import ListAuditCheckpointsRequest

        async def fetch(token: str, size: int) -> "tuple[Sequence[Checkpoint], str]":
            page = await client.audit.list_audit_checkpoints(
                ListAuditCheckpointsRequest(page_size=size, page_token=token)
            )
            return page.checkpoints, page.next_page_token

        found = [checkpoint async for checkpoint in pages(fetch, limit)]
        if as_json:
            print_json(found)
        elif not found:
            tell("Nothing was signed yet. A checkpoint comes 10 seconds after the first record.")
        else:
            print_table(("time", "records", "root"), [_checkpoint_row(checkpoint) for checkpoint in found])

    run(main)


@app.command()
def key() -> None:
    """Print the public key of the log. Keep it where whoever runs the database cannot change it.

    \b
      oiab audit key > audit.pub
    """

    async def main(client: "Client", _: "Place") -> None:
        typer.echo((await client.audit.get_audit_key()).public_key)

    run(main)


@app.command()
def erase(
    user_id: Annotated[str, typer.Argument(metavar="USER", help="The id of the user, as `oiab audit` shows it.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Erase what the log knows of a user beside what they did: addresses, programs, payloads. It cannot be undone.

    That it was done stays on record, and the chain stays valid.

    \b
      oiab audit erase 0198c0de-0000-7000-8000-000000000001
    """
    if not yes and not typer.confirm(f"Erase what the log knows of {user_id}? It cannot be undone", err=True):
        raise typer.Exit(1)

    async def main(client: "Client", _: "Place") -> None:
        from orginabox_sdk.orginabox.api.v1 import EraseAuditUserRequest

        answer = await client.audit.erase_audit_user(EraseAuditUserRequest(user_id=user_id))
        tell(f"Erased in {answer.erased} records.")

    run(main)


async def records(client: "Client", action: str, since: "datetime | None", limit: int) -> "list[Record]":
    """The records that fit, newest first."""
    from orginabox_sdk.orginabox.api.v1 import ListAuditRecordsRequest

    async def fetch(token: str, size: int) -> "tuple[Sequence[Record], str]":
        request = ListAuditRecordsRequest(action=action, since=since, page_size=size, page_token=token)
        page = await client.audit.list_audit_records(request)
        return page.records, page.next_page_token

    return [record async for record in pages(fetch, limit)]


def record_row(record: "Record") -> tuple[str, ...]:
    """A record as a row of a table."""
    when = f"{record.create_time.astimezone():%Y-%m-%d %H:%M:%S}" if record.create_time is not None else ""
    return when, record.action, record.target or "-", record.actor, record.channel or "-"


def _print_report(report: "VerifyAuditLogResponse", *, full: bool) -> None:
    looked = f"{report.records} {'' if full else 'new '}records and {report.checkpoints} checkpoints"
    if not report.damages:
        tell(f"Whole: {looked} verified; {report.size} records are signed.", fg="green")
        return
    rows = [(damage.kind.name or "", str(damage.sequence), damage.message) for damage in report.damages]
    print_table(("damage", "where", "what"), rows)
    tell(f"Damaged: {looked} verified.", fg="red")


def _checkpoint_row(checkpoint: "Checkpoint") -> tuple[str, ...]:
    when = f"{checkpoint.create_time.astimezone():%Y-%m-%d %H:%M:%S}" if checkpoint.create_time is not None else ""
    return when, str(checkpoint.size), checkpoint.note.split("\n")[2]


def _form(form: Form) -> "ExportFormat":
    from orginabox_sdk.orginabox.audit.v1 import ExportFormat

    return {Form.CSV: ExportFormat.CSV, Form.OCSF: ExportFormat.OCSF, Form.CHAIN: ExportFormat.CHAIN}[form]


def _progress(text: str) -> None:
    """Say how far it is, over what was said before. Only people want to know."""
    if sys.stderr.isatty():
        typer.echo(f"\r\x1b[K{text}", err=True, nl=False)


def _time(text: str) -> "datetime | None":
    from gateways.chat.words import since

    if not text:
        return None
    try:
        return since(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--since") from None
