"""What Worker is told by its environment."""

import os
import socket

from pydantic import Field

from services.kit.settings import MeshSettings


class WorkerSettings(MeshSettings):
    """The settings of Worker."""

    worker_concurrency: int = Field(
        default=16, ge=1, le=1000, description="How many turns one worker runs at once. They wait on models, not on us."
    )
    worker_id: str = Field(
        default_factory=lambda: f"{socket.gethostname()}-{os.getpid()}"[:128],
        description="The worker's name in logs and in the queue.",
    )
