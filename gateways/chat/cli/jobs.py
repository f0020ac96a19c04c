"""`oiab jobs`: the work that waits, runs, or has gone wrong."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from gateways.chat.cli.running import pages, print_json, run, tell
from gateways.chat.cli.table import print_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orginabox_sdk.orginabox.queue.v1 import Job

    from gateways.chat.place import Place
    from gateways.sdk import Client

EMPTY = 'No jobs yet. Each turn is one: oiab ask "Say hello"'
HELP = """
The work of the box: a job for each turn. A worker takes a job that is ready; one that fails comes again after a while,
and one that has failed as often as it may is dead.

\b
  oiab jobs list                       the newest first
  oiab jobs list --state leased        what runs now
  oiab jobs list --state delayed       what failed and comes again
  oiab jobs show ID                    where one stands, and why it failed
  oiab jobs cancel ID                  stop it, whether it waits or runs
  oiab jobs dead                       what failed for good
  oiab jobs retry ID                   try a dead one again

\b
How many there are of each: oiab queue stats
"""


class State(StrEnum):
    """Where a job stands."""

    READY = "ready"
    LEASED = "leased"
    DELAYED = "delayed"
    BLOCKED = "blocked"
    COMPLETED = "completed"
    DEAD = "dead"
    CANCELLED = "cancelled"


app = typer.Typer(no_args_is_help=True, help=HELP, rich_markup_mode=None)

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="The job; `oiab jobs list` shows the ids.")]
KindOption = Annotated[str, typer.Option("--kind", "-k", metavar="KIND", help="Only this kind, such as agent-turn.")]
LimitOption = Annotated[int, typer.Option("--limit", "-n", min=0, help="How many at most; 0 for all.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for a program.")]


@app.command("list")
def list_jobs(
    state: Annotated[State | None, typer.Option("--state", "-s", help="Only jobs that stand so.")] = None,
    kind: KindOption = "",
    session: Annotated[str, typer.Option("--session", metavar="ID", help="Only the turns of this session.")] = "",
    limit: LimitOption = 20,
    as_json: JsonOption = False,
) -> None:
    """List jobs, newest first.

    ready: waits for a worker. leased: runs. delayed: waits for its time or the next attempt. blocked: waits for an
    earlier job of its session. completed, dead and cancelled: over.
    """

    async def main(client: "Client", _: "Place") -> None:
        found = await jobs(client, state, kind=kind, key=f"session:{session}" if session else "", limit=limit)
        if as_json:
            print_json(found)
        elif not found:
            tell("No jobs fit." if state or kind or session else EMPTY)
        else:
            print_table(("id", "kind", "state", "attempt", "enqueued", "key"), [_row(job) for job in found])

    run(main)


@app.command()
def show(job_id: IdArgument, as_json: JsonOption = False) -> None:
    """Show one job: where it stands, and why its last attempt failed."""

    async def main(client: "Client", _: "Place") -> None:
        from orginabox_sdk.orginabox.api.v1 import GetJobRequest

        found = (await client.jobs.get_job(GetJobRequest(job_id=job_id))).job
        if found is None:
            return
        if as_json:
            print_json(found)
            return
        for name, value in _details(found):
            typer.echo(f"{name:<11}{value}")

    run(main)


@app.command()
def cancel(job_id: IdArgument, as_json: JsonOption = False) -> None:
    """Cancel a job. One that waits ends at once; one that runs is told to stop. The turn that it runs is aborted."""

    async def main(client: "Client", _: "Place") -> None:
        from orginabox_sdk.orginabox.api.v1 import CancelJobRequest

        found = (await client.jobs.cancel_job(CancelJobRequest(job_id=job_id))).job
        if as_json and found is not None:
            print_json(found)
            return
        state = state_name(found)
        tell({"cancelled": "Cancelled.", "leased": "Told to stop."}.get(state, f"Nothing to cancel: it is {state}."))

    run(main)


@app.command()
def retry(job_id: IdArgument, as_json: JsonOption = False) -> None:
    """Give a dead job all its attempts again. `oiab jobs dead` lists them."""

    async def main(client: "Client", _: "Place") -> None:
        from orginabox_sdk.orginabox.api.v1 import RetryJobRequest

        found = (await client.jobs.retry_job(RetryJobRequest(job_id=job_id))).job
        if as_json and found is not None:
            print_json(found)
        else:
            tell(f"It is {state_name(found)} again.")

    run(main)


@app.command()
def dead(kind: KindOption = "", limit: LimitOption = 20, as_json: JsonOption = False) -> None:
    """List the jobs that failed for good, with why. They stay until somebody retries them."""

    async def main(client: "Client", _: "Place") -> None:
        from gateways.chat.words import one_line

        found = await jobs(client, State.DEAD, kind=kind, limit=limit)
        if as_json:
            print_json(found)
        elif not found:
            tell("No job is dead.")
        else:
            rows = [(job.job_id, job.kind, str(job.attempt), one_line(job.last_error, 80) or "-") for job in found]
            print_table(("id", "kind", "attempts", "last error"), rows)
            tell("Give one all its attempts again: oiab jobs retry ID")

    run(main)


async def jobs(client: "Client", state: State | None, *, kind: str = "", key: str = "", limit: int) -> "list[Job]":
    """The jobs that fit, newest first."""
    from orginabox_sdk.orginabox.api.v1 import ListJobsRequest
    from orginabox_sdk.orginabox.queue.v1 import JobState

    wanted = JobState[state.name] if state else JobState.UNSPECIFIED

    async def fetch(token: str, size: int) -> "tuple[Sequence[Job], str]":
        request = ListJobsRequest(state=wanted, kind=kind, key=key, page_size=size, page_token=token)
        page = await client.jobs.list_jobs(request)
        return page.jobs, page.next_page_token

    return [job async for job in pages(fetch, limit)]


def state_name(job: "Job | None") -> str:
    """Where a job stands, in a word."""
    return str(job.state.name or "unknown").lower() if job is not None else "unknown"


def _row(job: "Job") -> tuple[str, ...]:
    from gateways.chat.words import ago

    return job.job_id, job.kind, state_name(job), _attempt(job), ago(job.create_time), job.key or "-"


def _attempt(job: "Job") -> str:
    return f"{job.attempt}/{job.max_attempts}"


def _details(job: "Job") -> list[tuple[str, str]]:
    from gateways.chat.words import ago, clean

    times = {"enqueued": job.create_time, "runs after": job.run_time, "deadline": job.deadline, "ended": job.end_time}
    lines = [("id", job.job_id), ("kind", job.kind), ("state", state_name(job)), ("attempt", _attempt(job))]
    lines += [(name, f"{time.astimezone():%Y-%m-%d %H:%M:%S}, {ago(time)}") for name, time in times.items() if time]
    lines += [("key", job.key), ("waits for", ", ".join(job.depends_on)), ("last error", clean(job.last_error))]
    return [(name, value) for name, value in lines if value]
