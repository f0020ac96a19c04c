"""Records as events of the Open Cybersecurity Schema Framework, version 1.3: one JSON object each."""

import json
from typing import Any

from services.audit.record import Record

VERSION = "1.3.0"
_API_ACTIVITY, _AUTHENTICATION, _ACCOUNT_CHANGE = 6003, 3002, 3001
_OTHER = 99
_SIGN_IN = {"login": 1, "logout": 2}
_VERBS = {
    "create": 1, "add": 1, "issue": 1, "prompt": 1, "import": 1,
    "read": 2, "list": 2, "search": 2, "export": 2, "verify": 2,
    "update": 3, "apply": 3, "pause": 3, "resume": 3, "retry": 3, "change": 3, "grant": 3, "share": 3,
    "delete": 4, "remove": 4, "revoke": 4, "cancel": 4, "abort": 4, "erase": 4, "expire": 4,
}  # fmt: skip
_REFUSED = ("denied", "deny", "failed", "refused", "reuse")


def event_of(record: Record) -> dict[str, Any]:
    """The event that a record is."""
    kind, activity = _class_of(record.action)
    refused = record.action.endswith(_REFUSED)
    return {
        "activity_id": activity,
        "category_uid": kind // 1000,
        "class_uid": kind,
        "type_uid": kind * 100 + activity,
        "time": int(record.create_time.timestamp() * 1000),
        "severity_id": 3 if refused else 1,
        "status_id": 2 if refused else 1,
        "message": f"{record.action} {record.target}".strip(),
        "metadata": {
            "version": VERSION,
            "uid": str(record.record_id),
            "sequence": record.sequence,
            "log_name": "audit",
            "tenant_uid": str(record.tenant_id),
            "product": {"name": "Org in a Box", "vendor_name": "Org in a Box"},
        },
        "actor": {"user": {"uid": str(record.user_id or record.actor), "name": record.actor}},
        "user": {"uid": str(record.user_id or record.actor), "name": record.actor},
        "src_endpoint": {"ip": record.ip_address} if record.ip_address else {"name": record.channel or "box"},
        "http_request": {"user_agent": record.user_agent},
        "api": {"operation": record.action, "service": {"name": "orginabox"}},
        "resources": [{"uid": record.target, "type": record.target.partition(":")[0]}] if record.target else [],
        "unmapped": {
            "session_id": record.session_id,
            "channel": record.channel,
            "payload": dict(record.payload or {}),
            "erased": record.erased,
            "hash": record.hash.hex(),
        },
    }


def line_of(record: Record) -> str:
    """The event as a line of JSON."""
    return json.dumps(event_of(record), ensure_ascii=False, separators=(",", ":")) + "\n"


def _class_of(action: str) -> tuple[int, int]:
    """The class and the activity of an action."""
    category, _, rest = action.partition(".")
    words = rest.split("_")
    if category == "auth" and (found := next((word for word in words if word in _SIGN_IN), None)):
        return _AUTHENTICATION, _SIGN_IN[found]
    verb = _VERBS.get(words[-1], _OTHER)
    if category == "admin" and words[0] == "user":
        return _ACCOUNT_CHANGE, {1: 1, 4: 6}.get(verb, _OTHER)
    return _API_ACTIVITY, verb
