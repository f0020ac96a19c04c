"""What Sandbox is told by its environment."""

from pathlib import Path

from pydantic import ByteSize, Field
from pydantic_settings import SettingsConfigDict

from sandbox.agent import BINARY
from services.kit.settings import MeshSettings
from services.sandbox.driver import Limits
from services.sandbox.patience import Patience


class SandboxSettings(MeshSettings):
    """The settings of Sandbox."""

    model_config = SettingsConfigDict(env_prefix="OIAB_", frozen=True, extra="ignore")

    opencode: Path = Field(default=BINARY, description="The agent's program.")
    sandbox_memory: ByteSize = Field(default=ByteSize(2 * 2**30), description="Memory of one sandbox, such as `2GiB`.")
    sandbox_pids: int = Field(default=512, ge=64, description="How many processes and threads one sandbox may have.")
    sandbox_idle_seconds: float = Field(default=1800, gt=0, description="A sandbox without a turn stops after this.")
    sandbox_start_seconds: float = Field(default=60, gt=0, description="How long a sandbox may take to come up.")
    run_keep_seconds: float = Field(default=900, ge=0, description="How long a run is kept after its end.")
    provider_retry_seconds: float = Field(
        default=120, gt=0, description="How long a model provider may fail before a turn does."
    )
    provider_silence_seconds: float = Field(
        default=600, gt=0, description="How long a model provider may say nothing before a turn fails."
    )
    permission_timeout: float = Field(
        default=0,
        ge=0,
        description="Seconds after which a turn goes on without a permission that nobody answered. 0 waits for ever.",
    )
    turn_soft_limit: float = Field(
        default=3000,
        gt=0,
        description="Seconds of work after which an agent is told to wrap up. Waiting for a permission is no work.",
    )
    turn_hard_limit: float = Field(default=3600, gt=0, description="Seconds of work after which a turn is stopped.")

    def limits(self) -> Limits:
        """What one sandbox may use."""
        return Limits(memory_bytes=int(self.sandbox_memory), pids=self.sandbox_pids)

    def patience(self) -> Patience:
        """How long a turn waits for what."""
        return Patience(
            retries=self.provider_retry_seconds,
            silence=self.provider_silence_seconds,
            permission=self.permission_timeout,
            soft_limit=self.turn_soft_limit,
            hard_limit=self.turn_hard_limit,
        )

    @property
    def volumes(self) -> Path:
        """The files of the sandboxes."""
        return self.home / "sandboxes"

    @property
    def runtime(self) -> Path:
        """The bundles."""
        return self.home / "runtime"

    @property
    def model_door(self) -> Path:
        """The folder with the socket of the model door."""
        return self.run_folder() / "model"
