"""One run: rounds of load and faults, each followed by a rest in which everything is checked."""

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial

import httpx
from psycopg.conninfo import make_conninfo

from tests.bench.mesh_bench import scripted_model
from tests.chaos import invariants
from tests.chaos.account import Account
from tests.chaos.faults import Dice, Hurt, hurting
from tests.chaos.jobs import CONCURRENCY, KIND, JobLoad
from tests.chaos.ledger import Ledger, Seen, Turn
from tests.chaos.replica import environment
from tests.chaos.schedules import Schedules
from tests.chaos.turns import Line, Lost, Talker, effects_of
from tests.e2e.conftest import use_scripted_model
from tests.e2e.mesh import Box, box, free_port

SESSIONS = 6
ROUND_SECONDS = 40.0
READ_TIMEOUT = httpx.Timeout(10.0, read=25.0)

SANDBOX_FAULTS = ("kill -9 opencode", "kill -9 sandbox")
DOOR_FAULTS = ("kill -9 envoy", "kill -9 runtime", "immediate stop of postgres")
AFTERMATH_SECONDS = 20.0
"""For how long after a fault an ending may be due to it, such as when a model call was cut and all its repeats too."""

Fault = Callable[[], Awaitable[None]]


@dataclass
class Run:
    """What a run needs, and what came of it."""

    box: Box
    ledger: Ledger
    rng: random.Random
    database: str
    hurt: Hurt
    talkers: Sequence[Talker]
    line: Line
    jobs: JobLoad
    schedules: Schedules
    checked: int = 0

    def quick(self) -> list[Fault]:
        """Faults that are over in a moment."""
        kills = [self.hurt.kill(name) for name in ("worker", "queue", "api", "envoy", "sandbox", "audit", "runtime")]
        return [
            *kills,
            self.hurt.crash_postgres,
            self.hurt.kill_agent,
            self.hurt.kill_second_queue,
            self.hurt.kill_second_worker,
            self.hurt.cut_clients,
            self.hurt.cut_worker,
            self.hurt.kill_client,
        ]

    def lasting(self) -> list[Fault]:
        """Faults that last longer than a lease."""
        return [
            self.hurt.stop_worker,
            self.hurt.stop_second_worker,
            self.hurt.stop_queue,
            self.hurt.part_worker,
            self.hurt.disable_notify,
            self.hurt.stop_skewed_worker,
        ]

    def short(self) -> list[Fault]:
        """Those that do not take as long."""
        return [self.hurt.disable_notify, partial(self.hurt.stop_skewed_worker, at_once=True)]

    async def round(self, seconds: float, quick: Sequence[Fault], lasting: Sequence[Fault]) -> None:
        """Load and faults for so many seconds; then rest, and check."""
        stop = asyncio.Event()
        talking = [asyncio.create_task(talker.talk(stop)) for talker in self.talkers]
        enqueueing = [asyncio.create_task(each(stop)) for each in (self.jobs.put_in, self.schedules.tick)]
        end = time.monotonic() + seconds
        async with asyncio.TaskGroup() as faults:
            for fault in lasting:
                faults.create_task(fault())  # type: ignore[arg-type]
            for fault in quick:
                await asyncio.sleep(self.rng.uniform(0.5, 1.5) * seconds / (len(quick) + 1))
                await fault()
            await asyncio.sleep(max(end - time.monotonic(), 0))
        stop.set()
        await asyncio.gather(*talking, *enqueueing)
        for talker in self.talkers:
            await talker.usable()
        await invariants.settle(self.database, self.ledger)
        await self.jobs.probe()
        await invariants.settle(self.database, self.ledger)
        await self.check()

    async def check(self) -> None:
        """Hold what clients saw against what the box keeps, for the turns of this round."""
        turns, self.checked = self.ledger.turns[self.checked :], len(self.ledger.turns)
        marks = await asyncio.to_thread(effects_of, self.box)
        for turn in turns:
            await self._check_replay(turn)
            self._check_ending(turn)
            if marks.count(turn.mark) > 1 and turn.mark:
                self.ledger.violated(f"turn {turn.turn_id}: its tool ran {marks.count(turn.mark)} times")
            if turn.mark and turn.ending == "completed" and turn.mark not in marks:
                self.ledger.violated(f"turn {turn.turn_id}: its tool never ran")
        self.jobs.account.check(await asyncio.to_thread(invariants.effects, self.database))
        await asyncio.to_thread(self.schedules.check)

    async def _check_replay(self, turn: Turn) -> None:
        replay = Seen()
        try:
            await self.line.follow(turn, replay, answers=False, cuts=False)
        except Lost as lost:
            self.ledger.violated(str(lost))
        for seen in turn.readers:
            if seen.lines != replay.lines:
                place = next(
                    (n for n, (a, b) in enumerate(zip(seen.lines, replay.lines, strict=False)) if a != b),
                    min(seen.last, replay.last),
                )
                self.ledger.violated(
                    f"turn {turn.turn_id}: live and replay differ at {place + 1} of {seen.last} and {replay.last}:"
                    f" {seen.lines[place : place + 1]} {replay.lines[place : place + 1]}"
                )

    def _check_ending(self, turn: Turn) -> None:
        ending = turn.ending
        self.ledger.counts[f"ended {ending or 'never'}"] += 1
        if not ending_is_fine(turn, self.ledger):
            self.ledger.violated(f"turn {turn.turn_id} ended with {ending or 'nothing'}: {turn.events[-1:]}")
        if ending == "completed" and turn.text and (heard := said(turn)) != turn.text:
            self.ledger.violated(f"turn {turn.turn_id} said {heard!r} instead of {turn.text!r}")


def ending_is_fine(turn: Turn, ledger: Ledger) -> bool:
    """Whether a turn was completed, or ended by what was done to it."""
    began, ended = turn.acknowledged - AFTERMATH_SECONDS, turn.ended
    return {
        "completed": True,
        "aborted": turn.may_abort,
        "SANDBOX_LOST": ledger.between(began, ended, *SANDBOX_FAULTS),
        "RUN_LOST": ledger.between(began, ended, *SANDBOX_FAULTS),
        "PROVIDER_UNAVAILABLE": ledger.between(began, ended, *DOOR_FAULTS),
    }.get(turn.ending, False)


def said(turn: Turn) -> str:
    """All the text of a turn that counts."""
    void = {part for event in turn.events if "partsVoided" in event for part in event["partsVoided"]["partIds"]}
    deltas = [event["textDelta"] for event in turn.events if "textDelta" in event]
    return "".join(delta["text"] for delta in deltas if delta["partId"] not in void)


def shuffled(rng: random.Random, faults: list[Fault], count: int) -> list[Fault]:
    """So many of the faults, each as often as the others."""
    found: list[Fault] = []
    while len(found) < count:
        found += rng.sample(faults, len(faults))
    return found[:count]


def run(minutes: float, seed: int) -> tuple[Ledger, dict[str, int]]:
    """Run for so many minutes."""
    with scripted_model() as model, box(OIAB_DEMO_MODEL="false") as made:
        use_scripted_model(made, model)
        made.turn("say warm")
        return asyncio.run(_run(made, minutes * 60, seed))


async def _run(made: Box, seconds: float, seed: int) -> tuple[Ledger, dict[str, int]]:
    dice, ledger, port = Dice(random.Random(seed), random.Random(seed + 1)), Ledger(), free_port()
    account = Account(ledger, CONCURRENCY)
    password = (made.home / "secrets" / "postgres_superuser_password").read_text().strip()
    database = make_conninfo(environment(made.pid("api"))["OIAB_DATABASE_URL"], user="postgres", password=password)
    limits = httpx.Limits(max_connections=200, max_keepalive_connections=20)
    async with (
        hurting(made, account, dice, database, port) as hurt,
        httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}",
            headers=made.headers,
            timeout=READ_TIMEOUT,
            trust_env=False,
            limits=limits,
        ) as http,
    ):
        line = Line(http, ledger, dice.load)
        talkers = [Talker(line, await line.session()) for _ in range(SESSIONS)]
        schedules = Schedules(hurt.queue_at, database, account, KIND)
        await asyncio.to_thread(hurt.jobs.prepare)
        await schedules.prepare()
        whole = Run(made, ledger, dice.plan, database, hurt, talkers, line, hurt.jobs, schedules)
        stop = asyncio.Event()
        background = [
            asyncio.create_task(hurt.hold_xmin(stop)),
            asyncio.create_task(hurt.jobs.work(stop)),
            asyncio.create_task(invariants.watch(database, ledger, stop)),
        ]
        try:
            await _rounds(whole, seconds)
        finally:
            stop.set()
            for task in background:
                with contextlib.suppress(Exception):
                    await asyncio.wait_for(task, 10)
        ledger.counts["jobs acknowledged"] = len(account.acknowledged)
        return ledger, await asyncio.to_thread(invariants.totals, database)


async def _rounds(whole: Run, seconds: float) -> None:
    end = time.monotonic() + seconds
    number = 0
    short = seconds <= ROUND_SECONDS * 1.5
    lasting = shuffled(whole.rng, whole.lasting(), 100)
    quick = shuffled(whole.rng, whole.quick(), 2000)
    while not number or time.monotonic() < end:
        number += 1
        span = seconds if short else ROUND_SECONDS
        count = len(whole.quick()) if short else 10
        await whole.round(span, [quick.pop(0) for _ in range(count)], whole.short() if short else [lasting.pop(0)])
        turns, faults = len(whole.ledger.turns), len(whole.ledger.faults)
        print(
            f"round {number}: {turns} turns, {whole.ledger.counts['events read']} events, {faults} faults,"
            f" {len(whole.ledger.violations)} violations",
            flush=True,
        )
    whole.ledger.counts["rounds"] = number
