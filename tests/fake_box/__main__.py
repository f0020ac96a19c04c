"""The fake box as a process: `python -m tests.fake_box PORT [KEY]`."""

import asyncio
import sys
from functools import partial

from services.kit.server import run, serve
from tests.fake_box.handlers import SERVICES, key_layer, register
from tests.fake_box.state import FakeBox


async def main(stop: asyncio.Event) -> None:
    """Serve until told to stop."""
    port, key = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else ""
    box = FakeBox(checkpoint_seconds=1)
    await serve(f"127.0.0.1:{port}", SERVICES, partial(register, box), layers=[key_layer(box, key)], stop=stop)


if __name__ == "__main__":
    run("fake-box", main)
