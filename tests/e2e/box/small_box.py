"""An installation with a stand-in for the API and none of the other services: `python -m tests.e2e.box.small_box`."""

import os
import sys
from dataclasses import replace

from services.box.commands import Progress
from services.box.errors import BoxError
from services.box.home import Home
from services.box.installation import Installation
from services.box.process import ProcessSpec
from services.box.roles import Logins
from services.box.run import run

KEPT = {"postgres", "envoy", "api"}


def processes(installation: Installation, logins: Logins, server: ProcessSpec | None) -> list[ProcessSpec]:
    """The processes of the installation that need no service of the mesh."""
    kept = [spec for spec in installation.processes(logins, server) if spec.name in KEPT]
    return [_with_stand_in(spec) if spec.name == "api" else spec for spec in kept]


def _with_stand_in(spec: ProcessSpec) -> ProcessSpec:
    if "broken" in sys.argv:
        return replace(spec, argv=(sys.executable, "-c", "raise SystemExit('it is broken')"))
    return replace(spec, argv=(sys.executable, "-m", "tests.e2e.box.stand_in", spec.env["OIAB_API_ADDRESS"]))


if __name__ == "__main__":
    try:
        run(Home.locate(os.environ), os.environ, Progress().told, processes)
    except BoxError as error:
        sys.exit(str(error))
