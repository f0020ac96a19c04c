"""Runs chaos and writes what came of it: `python -m tests.chaos [--minutes N] [--seed S] [--page]`."""

import argparse
import random
import sys
from datetime import UTC, datetime

from services.kit import telemetry
from tests.bench.report import machine
from tests.chaos.report import PAGE, page, summary
from tests.chaos.run import run


def main() -> int:
    """Run, and print the counts; the code tells whether anything was violated."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long faults go on")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="of the plan; default: a random one")
    parser.add_argument("--page", action="store_true", help="write the result into the documentation")
    asked = parser.parse_args()
    telemetry.configure("chaos", "error")
    about = f"{datetime.now(UTC):%Y-%m-%d}, {asked.minutes:g} minutes, seed {asked.seed}, {machine()}"
    print(about, flush=True)
    ledger, totals = run(asked.minutes, asked.seed)
    print(summary(ledger, totals))
    if asked.page and not ledger.violations:
        PAGE.write_text(page(ledger, totals, about))
    return 1 if ledger.violations else 0


if __name__ == "__main__":
    sys.exit(main())
