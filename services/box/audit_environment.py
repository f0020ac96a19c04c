"""What the SDK of a bucket of checkpoints is told: credentials that only Audit gets, and only for a bucket."""

from collections.abc import Mapping

ROOM = "audit"
_PREFIX = "AWS_"
_SECRET = "OIAB_AUDIT_WEBHOOK_SECRET"  # noqa: S105 - the name of a variable
_NETWORK = frozenset({"HTTPS_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE"})


def audit_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables by which Audit reaches the places outside of the box that its settings name."""
    named = ("OIAB_AUDIT_CHECKPOINT_S3", "OIAB_AUDIT_CHECKPOINT_WEBHOOK", "OIAB_AUDIT_STREAM")
    if not any(environ.get(name) for name in named):
        return {}
    bucket = bool(environ.get("OIAB_AUDIT_CHECKPOINT_S3"))
    return {
        name: value
        for name, value in environ.items()
        if name in _NETWORK or name == _SECRET or (bucket and name.startswith(_PREFIX))
    }
