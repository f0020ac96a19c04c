"""What Audit tells of itself."""

from prometheus_client import Counter, Gauge, Histogram

from services.kit.metrics import POWERS, SECONDS

APPENDED = Counter("oiab_audit_appended_records", "Records that are on disk. One that came twice counts once.")
APPEND_SECONDS = Histogram("oiab_audit_append_seconds", "How long it takes to append a batch.", buckets=SECONDS)
BATCHES = Histogram("oiab_audit_batch_records", "Records in one call.", buckets=POWERS)
CHECKPOINT_SIZE = Gauge("oiab_audit_checkpoint_size", "How many records the newest checkpoint covers.")
UNPUBLISHED = Gauge("oiab_audit_unpublished_checkpoints", "Checkpoints that a place has not yet.", ["place"])
PUSH_FAILURES = Counter("oiab_audit_push_failures", "Pushes of a checkpoint that failed.", ["place"])
DAMAGE = Gauge("oiab_audit_damage", "Damage that the last verification found, by its name.", ["kind"])
VERIFIED = Histogram("oiab_audit_verify_seconds", "How long a verification took.", buckets=SECONDS)
STREAMED = Counter("oiab_audit_streamed_records", "Records that the receiver of the stream has.")
STREAM_FAILURES = Counter("oiab_audit_stream_failures", "Batches that the receiver of the stream did not take.")
