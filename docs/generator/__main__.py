"""Writes the reference pages, or with `--check` tells whether they are what they should be."""

import sys
from importlib.metadata import version
from pathlib import Path

from docs.generator.commands import read_commands
from docs.generator.contract import read_contract
from docs.generator.openapi import make_openapi
from docs.generator.pages import Subject, make_pages
from docs.generator.settings import read_settings

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "pages" / "reference"
OPENAPI = "openapi.json"


def read_subject(root: Path = ROOT) -> Subject:
    """All that the reference tells of."""
    from gateways.chat.cli.app import build

    return Subject(read_contract(root), read_commands(build(), "oiab"), read_settings(root))


def main() -> int:
    """Write or check."""
    subject = read_subject()
    pages = make_pages(subject) | {OPENAPI: make_openapi(subject.contract, version("orginabox"))}
    there = {path.name: path.read_text() for path in REFERENCE.iterdir()} if REFERENCE.is_dir() else {}
    if "--check" in sys.argv[1:]:
        stale = sorted(name for name in pages.keys() | there.keys() if pages.get(name) != there.get(name))
        for name in stale:
            sys.stderr.write(f"docs/pages/reference/{name} is not what `make docs` would write\n")
        return bool(stale)
    REFERENCE.mkdir(parents=True, exist_ok=True)
    for name in there.keys() - pages.keys():
        (REFERENCE / name).unlink()
    for name, text in pages.items():
        if there.get(name) != text:
            (REFERENCE / name).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
