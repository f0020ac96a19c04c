"""The short form: every quick fault once, in half a minute of load, and nothing is violated."""

import subprocess
import sys

import pytest

from tests.e2e.mesh import ROOT

SEED = 3


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
