"""What Api is told by its environment."""

from pathlib import Path

from pydantic import Field, SecretStr

from services.kit.settings import MeshSettings


class ApiSettings(MeshSettings):
    """The settings of Api."""

    api_key: SecretStr | None = Field(
        default=None,
        validation_alias="ORGINABOX_API_KEY",
        description="The key that opens the API. Default: `secrets/api_key` in the home.",
    )
    log_retention_days: int = Field(
        default=400,
        ge=1,
        description="How many days the events of a turn are kept: a year, and a month to look back at it. What was "
        "said stays until its session is deleted.",
    )

    def key(self) -> str:
        """The key of the single-operator mode: as set, else the one that the installation generated.

        Raises:
            ValueError: There is none: the box would be open to everybody.
        """
        if self.api_key and self.api_key.get_secret_value():
            return self.api_key.get_secret_value()
        path = Path(self.home, "secrets", "api_key")
        if not path.exists():
            raise ValueError(f"set ORGINABOX_API_KEY, or start the box with `oiab up`, which makes {path}")
        return path.read_text().strip()
