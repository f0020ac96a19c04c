"""Audit is told the credentials of a bucket when it has one, and nothing else of them."""

from services.box.audit_environment import audit_environment

FOUND = {"AWS_ACCESS_KEY_ID": "a", "AZURE_CLIENT_ID": "b", "HTTPS_PROXY": "c", "PATH": "d"}


def test_credentials_go_only_where_they_are_used() -> None:
    assert audit_environment(FOUND) == {}
    assert audit_environment(FOUND | {"OIAB_AUDIT_STREAM": "https://siem"}) == {"HTTPS_PROXY": "c"}
    with_bucket = audit_environment(FOUND | {"OIAB_AUDIT_CHECKPOINT_S3": "s3://proofs/"})
    assert with_bucket == {"AWS_ACCESS_KEY_ID": "a", "HTTPS_PROXY": "c"}
