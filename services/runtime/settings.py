"""What Runtime is told by its environment."""

from pathlib import Path

from pydantic import Field

from services.kit.keyring.settings import KeyringSettings


class RuntimeSettings(KeyringSettings):
    """Where Runtime keeps and finds things."""

    demo_model: bool = Field(default=True, description="Whether the demo model runs.")
    demo_model_socket: Path | None = Field(default=None, description="Default: `demo-model.sock` in the run folder.")

    def demo_socket(self) -> str:
        """Where the demo model listens. Empty when it does not run."""
        return str(self.demo_model_socket or self.run_folder() / "demo-model.sock") if self.demo_model else ""
