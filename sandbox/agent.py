"""The agent that lives in a sandbox: opencode, pinned by `sandbox/opencode/package.json`."""

import json
from pathlib import Path

_FOLDER = Path(__file__).parent / "opencode"
_PLUGIN = "@opencode-ai/plugin"

# npm places the binary of this platform here, whatever the platform.
BINARY = _FOLDER / "node_modules" / "opencode-ai" / "bin" / "opencode.exe"


def version() -> str:
    """The pinned version of opencode."""
    pinned: str = json.loads((_FOLDER / "package.json").read_text())["dependencies"]["opencode-ai"]
    return pinned


def write_stub_plugin(folder: Path) -> None:
    """Make opencode believe that its plugin package is installed in a configuration folder.

    Without it opencode runs an npm install there at the first request: a silent download, or without a network
    a stall of more than a minute. It wants the package, the manifest and the lock, all of its own version. It also
    writes a .gitignore where there is none, and fails where it cannot.
    """
    pinned = version()
    package = folder / "node_modules" / _PLUGIN
    package.mkdir(parents=True, exist_ok=True)
    manifest = {"dependencies": {_PLUGIN: pinned}}
    lock = {
        "name": "opencode-config",
        "lockfileVersion": 3,
        "requires": True,
        "packages": {"": manifest, f"node_modules/{_PLUGIN}": {"version": pinned}},
    }
    _write(folder / "package.json", manifest)
    _write(folder / "package-lock.json", lock)
    (folder / ".gitignore").write_text("node_modules\npackage.json\npackage-lock.json\nbun.lock\n.gitignore\n")
    _write(package / "package.json", {"name": _PLUGIN, "version": pinned})


def _write(file: Path, content: object) -> None:
    file.write_text(json.dumps(content, indent=2) + "\n")
