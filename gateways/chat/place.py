"""Where the box is, and the key that opens it: from the environment, else from the home folder."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from dotenv import dotenv_values

from gateways.sdk.signed_in import CredentialsFile
from services.box.home import Home
from services.box.state import running_state

DEFAULT_PORT = "8787"
_THIS_MACHINE = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Place:
    """A box, as a client sees it.

    Attributes:
        url: Where it listens.
        key: What opens it. Empty when there is none.
        key_source: Where the key came from, for people.
        home: Where this machine keeps what the terminal remembers.
        credentials: The file of the sign-ins of the terminal.
        signed_in: Whether one of them is to this box, so that it counts and no key.
    """

    url: str
    key: str
    key_source: str
    home: Path
    credentials: Path = Path()
    signed_in: bool = False

    @classmethod
    def locate(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """The box that the environment names, else the one of this home."""
        home = Home.locate(environ)
        values = {name: value for name, value in dotenv_values(home.settings_file).items() if value} | dict(environ)
        running = None if values.get("OIAB_URL") or environ.get("OIAB_PORT") else running_state(home)
        here = running.address if running else f"http://127.0.0.1:{values.get('OIAB_PORT') or DEFAULT_PORT}"
        url = values.get("OIAB_URL") or here
        credentials = credentials_file(home, environ)
        key, source = values.get("ORGINABOX_API_KEY", ""), "ORGINABOX_API_KEY"
        if not environ.get("ORGINABOX_API_KEY") and CredentialsFile(credentials).get(url):
            return cls(url, "", str(credentials), home.root, credentials, signed_in=True)
        # The key of this home opens this machine's box only; it is not told to others.
        if not key and is_local(url):
            file = home.secrets / "api_key"
            key, source = _read(file), str(file)
        return cls(url, key, source, home.root, credentials)

    @property
    def local(self) -> bool:
        """Whether the box is on this machine."""
        return is_local(self.url)


def credentials_file(home: Home, environ: Mapping[str, str]) -> Path:
    """The file of sign-ins: in the home where there is one, else where programs keep their settings."""
    if environ.get("OIAB_HOME") or home.root.is_dir():
        return home.root / "credentials.json"
    config = environ.get("XDG_CONFIG_HOME")
    return (Path(config) if config else Path.home() / ".config") / "orginabox" / "credentials.json"


def is_local(url: str) -> bool:
    """Whether the address is one of this machine."""
    return urlsplit(url if "://" in url else f"//{url}").hostname in _THIS_MACHINE


def _read(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""
