"""The keyring as identity still has it: the file of the master key, made where there is none."""

from pathlib import Path
from typing import Self

from services.kit.keyring.errors import MasterKeyMissing
from services.kit.keyring.file_master import FileMaster


class Keyring(FileMaster):
    """The master key in a file."""

    @classmethod
    def open(cls, path: Path) -> Self:
        """The key in the file; it is made when there is no file."""
        try:
            return super().open(path)
        except MasterKeyMissing:
            return cls.create(path)
