"""What Audit measures."""

from prometheus_client import Counter, Histogram

from services.kit.metrics import SECONDS

APPENDED = Counter("oiab_audit_appended_records", "Records that are on disk. One that came twice counts once.")
APPEND_SECONDS = Histogram("oiab_audit_append_seconds", "How long it takes to append a batch.", buckets=SECONDS)
