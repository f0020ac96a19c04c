"""What Runtime is told by its environment."""

from pathlib import Path

from pydantic import Field

from services.kit.settings import MeshSettings


class RuntimeSettings(MeshSettings):
    """Where Runtime keeps and finds things."""

    keyring: Path | None = Field(default=None, description="The master key. Default: `secrets/keyring` in the home.")
    demo_model: bool = Field(default=True, description="Whether the demo model runs.")
    demo_model_socket: Path | None = Field(default=None, description="Default: `demo-model.sock` in the run folder.")

    def keyring_file(self) -> Path:
        """The file of the master key."""
        return self.keyring or self.home / "secrets" / "keyring"

    def demo_socket(self) -> str:
        """Where the demo model listens. Empty when it does not run."""
        return str(self.demo_model_socket or self.run_folder() / "demo-model.sock") if self.demo_model else ""
