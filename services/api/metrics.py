"""What Api measures of the log."""

from prometheus_client import Counter, Gauge, Histogram

from services.kit.metrics import POWERS, SECONDS

APPENDED = Counter("oiab_api_appended_events", "Events that are on disk.")
FLUSHED = Histogram("oiab_api_flush_events", "Events written by one flush of a log.", buckets=POWERS)
FLUSH_TIME = Histogram("oiab_api_flush_seconds", "How long a flush of a log takes.", buckets=SECONDS)
READERS = Gauge("oiab_api_open_streams", "Streams of events that are open.")
LAG = Histogram("oiab_api_reader_lag_events", "Events that waited for a reader when it came for more.", buckets=POWERS)
CAUGHT_UP = Counter("oiab_api_catch_up_reads", "Reads of a log from the disk, by readers that memory cannot serve.")
COMPACTED = Counter("oiab_api_compacted_logs", "Logs of ended turns that were compacted.")
