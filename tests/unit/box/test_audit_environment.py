"""Audit is told the credentials of a bucket when it has one, and nothing else of them."""

from pathlib import Path

from services.box.audit_environment import audit_environment
from services.box.home import Home
from services.box.installation import Installation
from services.box.settings import read_settings

FOUND = {"AWS_ACCESS_KEY_ID": "a", "AZURE_CLIENT_ID": "b", "HTTPS_PROXY": "c", "PATH": "d"}


def test_credentials_go_only_where_they_are_used() -> None:
    assert audit_environment(FOUND) == {}
    assert audit_environment(FOUND | {"OIAB_AUDIT_STREAM": "https://siem"}) == {"HTTPS_PROXY": "c"}
    with_bucket = audit_environment(FOUND | {"OIAB_AUDIT_CHECKPOINT_S3": "s3://proofs/"})
    assert with_bucket == {"AWS_ACCESS_KEY_ID": "a", "HTTPS_PROXY": "c"}


def test_secrets_of_the_environment_are_told_to_nobody_but_the_room_that_needs_them(tmp_path: Path) -> None:
    told = {"OIAB_AUDIT_WEBHOOK_SECRET": "s", "OIAB_PASSWORD": "p", "OIAB_USER_PASSWORD": "q", "OIAB_LOG_LEVEL": "info"}
    home = Home.locate({"OIAB_HOME": str(tmp_path)})
    passed = Installation(home, read_settings(home), told).environment()
    assert passed["OIAB_LOG_LEVEL"] == "info"
    assert not passed.keys() & {"OIAB_AUDIT_WEBHOOK_SECRET", "OIAB_PASSWORD", "OIAB_USER_PASSWORD"}
    assert audit_environment(told | {"OIAB_AUDIT_STREAM": "https://siem"}) == {"OIAB_AUDIT_WEBHOOK_SECRET": "s"}
