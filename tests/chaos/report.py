"""What came of a run, for the terminal and for the page."""

from collections.abc import Mapping
from pathlib import Path

from tests.chaos.ledger import Ledger

PAGE = Path(__file__).parents[2] / "docs" / "pages" / "operate" / "chaos.md"


def counts(ledger: Ledger, totals: Mapping[str, int]) -> dict[str, int]:
    """What was counted, the most important last."""
    return {
        "faults": len(ledger.faults),
        "turns acknowledged": len(ledger.turns),
        **dict(sorted(ledger.counts.items())),
        **totals,
        "violations": len(ledger.violations),
    }


def summary(ledger: Ledger, totals: Mapping[str, int]) -> str:
    """For the terminal."""
    lines = ["faults:", *(f"  {count:5d}  {kind}" for kind, count in ledger.faults_by_kind().items()), "counts:"]
    lines += [f"  {count:7d}  {name}" for name, count in counts(ledger, totals).items()]
    return "\n".join([*lines, *ledger.violations[:50]])


def page(ledger: Ledger, totals: Mapping[str, int], run: str) -> str:
    """For the documentation."""
    return (
        f"{INTRODUCTION}\n"
        f"## The last run\n\n{run}.\n\n"
        f"{_table('fault', ledger.faults_by_kind())}\n{_table('', counts(ledger, totals))}"
    )


def _table(what: str, rows: Mapping[str, int]) -> str:
    return f"| {what} | count |\n|---|---|\n" + "".join(f"| {name} | {count:,} |\n" for name, count in rows.items())


INTRODUCTION = """\
# Chaos

`make chaos` runs a whole box under load, hurts it by a random plan for ten minutes, and checks what it promises. A
short form, of every quick fault once, is part of `make test`. The plan follows from a seed, which is printed:
`python -m tests.chaos --seed 7`.

**The load.** Six sessions talk at once: long texts, tools that ask for permission and leave a mark, aborts, several
prompts before the first is answered, prompts repeated with the same request id. One or two readers follow each turn,
lose the line at random, and come back with `Last-Event-ID`. Beside them jobs go straight into the queue: ordered by
key, delayed, failing, doomed, repeated, cancelled before a worker has them and while one does; and two schedules tick,
one every minute and one about every second. A second Worker and a second Queue run beside those of the box.

**The faults.** kill -9 of Worker, Queue, Api, Envoy, Audit, Runtime, Sandbox and the agent in its sandbox; an immediate
stop of PostgreSQL; Worker and Queue stopped for longer than a lease and woken up; workers whose clocks are minutes
ahead or behind (by libfaketime), stopped until others have their work and woken up; a Worker behind a network that
loses everything for longer than a lease, and then delivers it late; all connections of all clients cut, or those of a
Worker; NOTIFY refused; a snapshot of the database held open for the whole run; clients killed in the middle of their
calls.

**What is checked.** After every round, when the load has come to rest:

- every prompt and every job that was acknowledged has ended; a repeated one is one;
- each reader saw 1, 2, 3, … without a gap or a double, exactly one terminal event, and what a replay says;
- what the agent said is what the model said; a tool that has an effect had it once;
- turns of a session and jobs of a key ran one at a time and in order; every session answers;
- a turn fails only by what was done to it: `SANDBOX_LOST` or `RUN_LOST` when the agent or its service was killed,
  `PROVIDER_UNAVAILABLE` when the way to the model was;
- every tick of a schedule fired once;
- with nothing wrong any more, delayed jobs start within a second of their time, and a worker is told within a
  heartbeat that its job was cancelled;
- in the database: no job is left, attempts are within their limit, dead letters say why, no log has a gap, nothing
  waits to be told, the audit log has every number and one record per prompt.

While everything burns: no job starts before its time or after it was cancelled; a worker that was stopped with a wrong
clock settles its job by a lease that another has by now, and is refused; a job gets through from one Queue to the
worker of the other while NOTIFY is refused; no worker runs more than it asked for. And twice a second: no key has two
leased jobs or two heads, no job is blocked by nobody, no lease token is used twice, no session has two running turns.

Each of these checks is itself shown a broken promise by `tests/chaos/test_planted_*.py`, and has to notice.
"""
