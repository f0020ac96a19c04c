"""Run the scripted model on its own: `python -m tests.model_server --port 4010`."""

import argparse
import asyncio
import contextlib
from pathlib import Path

from tests.model_server.server import ModelServer


async def _serve(arguments: argparse.Namespace) -> None:
    where = {"socket": arguments.socket, "port": arguments.port, "key": arguments.key}
    async with ModelServer.serve(**where):
        print("scripted model ready", flush=True)
        await asyncio.Event().wait()


def main() -> None:
    """Parse the command line and serve until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, help="listen on this loopback port")
    parser.add_argument("--socket", type=Path, help="listen on this unix socket")
    parser.add_argument("--key", default="", help="refuse every other bearer token")
    arguments = parser.parse_args()
    if arguments.port is None and arguments.socket is None:
        parser.error("give --port, --socket or both")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(arguments))


if __name__ == "__main__":
    main()
