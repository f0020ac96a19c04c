"""What a room with a keyring is told by its environment."""

from pydantic import Field

from services.kit.settings import MeshSettings


class KeyringSettings(MeshSettings):
    """Where the master key is. Runtime and Api have the same one."""

    keyring: str = Field(
        default="",
        description="The master key: `file:///path`, `azure-kv://vault/key`, `aws-kms://key?region=...` or "
        "`vault://host:8200/mount/key`. Default: the file `secrets/keyring` in the home.",
    )
    keyring_previous: str = Field(
        default="",
        description="The master key from before, while `oiab keyring rewrap` has not been run. It only opens.",
    )
    keyring_lost: str = Field(
        default="",
        description="The names of master keys that are lost for good, as the refusal to start says them, with commas "
        "between. What is sealed under them is given up.",
    )

    def master_address(self) -> str:
        """Where the master key is."""
        return self.keyring or f"file://{self.home / 'secrets' / 'keyring'}"
