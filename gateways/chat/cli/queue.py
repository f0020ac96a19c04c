"""`oiab queue`: how the queue stands, whether it hands out work, and to how many jobs at once."""

from typing import TYPE_CHECKING, Annotated

import typer

from gateways.chat.cli.running import print_json, run, tell
from gateways.chat.cli.table import print_table

if TYPE_CHECKING:
    from orginabox_sdk.orginabox.queue.v1 import QueueStats

    from gateways.chat.place import Place
    from gateways.sdk import Client

EMPTY = "Nothing waits, runs or is dead."
HELP = """
How the queue stands, and how it hands out work.

\b
  oiab queue stats                   what waits, runs and is dead, by kind
  oiab queue pause agent-turn        let what runs end, and start nothing more
  oiab queue resume agent-turn       start again
  oiab queue share --at-once 4       run four jobs at once and no more
"""

app = typer.Typer(no_args_is_help=True, help=HELP, rich_markup_mode=None)

KindArgument = Annotated[str, typer.Argument(metavar="KIND", help="The kind of jobs; all when you do not say.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for a program.")]


@app.command()
def stats(kind: KindArgument = "", as_json: JsonOption = False) -> None:
    """Tell how many jobs wait, run and are dead.

    And how long the oldest has waited for a worker, kind by kind.
    """

    async def main(client: "Client", _: "Place") -> None:
        found = [each for each in (await client.jobs.get_queue_stats()).kinds if kind in {"", each.kind}]
        if as_json:
            print_json(found)
        elif not found:
            tell(f"There are no jobs of the kind {kind}." if kind else EMPTY)
        else:
            heads = ("kind", "ready", "oldest", "blocked", "delayed", "running", "dead", "paused")
            print_table(heads, [_row(each) for each in found])

    run(main)


@app.command()
def pause(kind: KindArgument = "", as_json: JsonOption = False) -> None:
    """Stop handing out jobs. New ones still go in and wait, and those that run go on."""

    async def main(client: "Client", _: "Place") -> None:
        from orginabox_sdk.orginabox.api.v1 import PauseQueueRequest

        answer = await client.jobs.pause_queue(PauseQueueRequest(kind=kind))
        if as_json:
            print_json(answer)
        else:
            tell(f"Paused. Hand out jobs again: oiab queue resume {kind}".rstrip())

    run(main)


@app.command()
def resume(kind: KindArgument = "", as_json: JsonOption = False) -> None:
    """Hand out jobs again."""

    async def main(client: "Client", _: "Place") -> None:
        from orginabox_sdk.orginabox.api.v1 import ResumeQueueRequest

        answer = await client.jobs.resume_queue(ResumeQueueRequest(kind=kind))
        if as_json:
            print_json(answer)
        else:
            tell("Resumed.")

    run(main)


@app.command()
def share(
    at_once: Annotated[
        int, typer.Option("--at-once", min=0, help="How many jobs may run at once; 0 for no limit.")
    ] = 0,
    weight: Annotated[
        int, typer.Option("--weight", min=1, max=1000, help="With 2, twice the jobs of a tenant with 1 when both wait.")
    ] = 1,
    as_json: JsonOption = False,
) -> None:
    """Set what your tenant gets of the queue. It replaces what was set before; without options there is no limit."""

    async def main(client: "Client", _: "Place") -> None:
        from orginabox_sdk.orginabox.api.v1 import SetQueueShareRequest

        answer = await client.jobs.set_queue_share(SetQueueShareRequest(weight=weight, max_in_flight=at_once))
        if as_json:
            print_json(answer)
        else:
            limit = f"at most {at_once} at once" if at_once else "as many at once as the workers take"
            tell(f"Weight {weight}, {limit}. What runs goes on.")

    run(main)


def _row(stats: "QueueStats") -> tuple[str, ...]:
    from gateways.chat.words import duration

    oldest = duration(stats.oldest_age.total_seconds()) if stats.oldest_age is not None else "-"
    counts = (stats.blocked, stats.delayed, stats.leased, stats.dead)
    return stats.kind, str(stats.ready), oldest, *map(str, counts), "yes" if stats.paused else "no"
