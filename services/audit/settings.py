"""What Audit is told by its environment."""

from pathlib import Path

from pydantic import Field, SecretStr

from services.kit.settings import MeshSettings


class AuditSettings(MeshSettings):
    """How Audit signs, publishes, streams and verifies the log."""

    audit_key: Path | None = Field(
        default=None, description="The key that signs checkpoints. Default: `audit/signing-key.pem` in the home."
    )
    audit_checkpoint_file: Path | None = Field(
        default=None,
        description="The file to which checkpoints are published, best on another disk. Default: `audit/checkpoints` "
        "in the home.",
    )
    audit_checkpoint_s3: str = Field(
        default="",
        description="A bucket to which checkpoints are published as well, such as `s3://bucket/prefix/`, best with "
        "object lock. Credentials are found as the AWS SDK finds them.",
    )
    audit_checkpoint_s3_endpoint: str = Field(default="", description="The address of an S3 that is not Amazon's.")
    audit_checkpoint_webhook: str = Field(
        default="", description="An `https` address to which checkpoints are sent as well."
    )
    audit_stream: str = Field(
        default="",
        description="Where records are streamed as OCSF events: an `https` address, or `syslog+tls://host:6514` or "
        "`syslog+tcp://host:601`.",
    )
    audit_stream_ca: Path | None = Field(
        default=None, description="The certificates to trust for `syslog+tls`. Default: those of the system."
    )
    audit_webhook_secret: SecretStr | None = Field(
        default=None, description="What webhooks are signed with: HMAC-SHA-256 of the body in `x-oiab-signature`."
    )
    audit_verify_seconds: float = Field(
        default=3600.0, gt=0, description="How often what is new in the log is verified."
    )

    def audit_folder(self) -> Path:
        """The folder of what is Audit's own."""
        return self.home / "audit"

    def key_file(self) -> Path:
        """The file of the signing key."""
        return self.audit_key or self.audit_folder() / "signing-key.pem"

    def checkpoint_file(self) -> Path:
        """The file of the published checkpoints."""
        return self.audit_checkpoint_file or self.audit_folder() / "checkpoints"
