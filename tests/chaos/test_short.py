"""The short form: every quick fault once, wrong clocks, lost hints, in half a minute of load; nothing is violated."""

import re
import subprocess
import sys

import pytest

from tests.e2e.mesh import ROOT

SEED = 3
# What has to be among the counts: a rule that was never put to the test holds for nothing.
TRIED = (
    "stale tokens refused",
    "ticks of schedules",
    "jobs cancelled before their claim",
    "jobs cancelled while leased",
    "workers told of a cancellation",
    "slowest start of a delayed job in calm",
    "jobs done without NOTIFY",
    "turns that a second worker took over",
)


@pytest.mark.timeout(300)
def test_every_fault_once() -> None:
    done = subprocess.run(
        (sys.executable, "-m", "tests.chaos", "--minutes", "0.5", "--seed", str(SEED)),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    print(done.stdout)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert [count for count in TRIED if not re.search(rf"^ +[1-9]\d*  {count}", done.stdout, re.MULTILINE)] == []
