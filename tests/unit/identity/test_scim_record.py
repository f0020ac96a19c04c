"""What a directory does by SCIM stands in the audit log: the log knows its name."""

from datetime import UTC, datetime
from uuid import uuid4

from services.audit.record import Record
from services.identity.scim_operations import Bringer
from services.identity.sign_in import Origin


def test_the_log_knows_the_program_that_brings_users() -> None:
    by = Bringer(uuid4(), Origin("web", "192.0.2.1", "directory/1")).who

    kept = Record(by.tenant_id, uuid4(), by.actor, "admin.user_create", datetime.now(UTC), channel=by.channel).checked()

    assert (kept.actor, kept.channel) == ("service:scim", "scim")
