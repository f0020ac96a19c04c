"""Runs the benchmarks and writes the page: `python -m tests.bench [name ...]`, all of them without a name."""

import asyncio
import sys
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.markdown import Markdown

from tests.bench import (
    audit_bench,
    fanout_bench,
    identity_bench,
    mesh_bench,
    policy_bench,
    queue_bench,
    queue_peers,
    tenancy_bench,
    tls_bench,
)
from tests.bench.report import Table, machine

BENCHES = {
    "mesh": mesh_bench.run,
    "policy": policy_bench.run,
    "identity": identity_bench.run,
    "tls": tls_bench.run,
    "tenancy": tenancy_bench.run,
    "audit": audit_bench.run,
    "queue": queue_bench.run,
    "peers": queue_peers.run,
    "fanout": fanout_bench.run,
}
PAGE = Path(__file__).parents[2] / "docs" / "pages" / "operate" / "benchmarks.md"


async def main(words: list[str]) -> None:
    """Run the named benchmarks. All of them, or `--page` among the words, write the page."""
    names = [word for word in words if word != "--page"]
    where, tables = machine(), list[Table]()
    for name in names or BENCHES:
        for table in await BENCHES[name]():
            tables.append(table)
            Console().print(Markdown(table.markdown()))
    if len(names) == len(words) - 1 or not names:
        head = (
            "# Benchmarks\n\n"
            "Written by `python -m tests.bench`; `make bench` adds the queue, its peers and many readers. "
            "Compare within a table, not between tables or machines.\n\n"
            f"{datetime.now(UTC):%Y-%m-%d}, {where}.\n"
        )
        PAGE.write_text("\n".join([head, *(table.markdown() for table in tables)]))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
