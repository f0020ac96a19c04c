"""What Runtime measures."""

from prometheus_client import Counter, Histogram

from services.kit.metrics import SECONDS

DECISIONS = Counter(
    "oiab_runtime_door_decisions", "Model calls at the door, by what was decided: `out`, or why not.", ["decision"]
)
DECISION_SECONDS = Histogram(
    "oiab_runtime_door_decision_seconds", "How long a model call waits for its decision.", buckets=SECONDS
)
APPLIED = Counter("oiab_runtime_applied_bundles", "Bundles that were applied.")
