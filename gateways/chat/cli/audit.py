"""`oiab audit`: who did what."""

# ruff: noqa: D301 - the mark \b keeps the lines after it as they are

from typing import TYPE_CHECKING, Annotated

import typer

from gateways.chat.cli.running import pages, print_json, run, tell
from gateways.chat.cli.table import print_table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from orginabox_sdk.orginabox.audit.v1 import Record

    from gateways.chat.place import Place
    from gateways.sdk import Client


app = typer.Typer()


@app.command()
def audit(
    action: Annotated[
        str, typer.Option("--action", "-a", help="Only this action; `agent.*` for all that begin so.")
    ] = "",
    since: Annotated[
        str, typer.Option("--since", metavar="TIME", help="Only from then on: 30m, 24h, 7d, 2026-01-31.")
    ] = "",
    limit: Annotated[int, typer.Option("--limit", "-n", min=0, help="How many at most; 0 for all.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a program.")] = False,
) -> None:
    """List who did what, newest first.

    \b
      oiab audit --since 24h
      oiab audit --action 'admin.*' --json
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


def _time(text: str) -> "datetime | None":
    from gateways.chat.words import since

    if not text:
        return None
    try:
        return since(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--since") from None
