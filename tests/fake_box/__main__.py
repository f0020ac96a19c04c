"""The fake box as a process: `python -m tests.fake_box PORT [KEY]`."""

import asyncio
import sys

from services.kit.server import run
from tests.fake_box.handlers import serve_openly
from tests.fake_box.state import FakeBox


async def main(stop: asyncio.Event) -> None:
    """Serve until told to stop."""
    port, key = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else ""
    box = FakeBox(checkpoint_seconds=1)
    await serve_openly(f"127.0.0.1:{port}", box, key, stop)


if __name__ == "__main__":
    run("fake-box", main)
