"""The verbs of the queue: each is one transaction. They are in a module for each noun, and all of them are named here.

Whoever changes a line holds the lock of its key first, and takes the locks of several keys in one order.
"""

from services.queue.job import MAX_BATCH
from services.queue.operations.enqueue import enqueue
from services.queue.operations.jobs import cancel_job, end_overdue, forget, get_job, list_jobs, promote_due, retry_job
from services.queue.operations.kinds import count_jobs, pause, resume
from services.queue.operations.leases import (
    LEASE_DURATION,
    Settled,
    Settlement,
    cancelled_leases,
    claim,
    forget_earlier_life,
    leases_of,
    open_session,
    reap,
    renew_sessions,
    settle,
    withdraw,
    withdraw_orphans,
)
from services.queue.operations.schedules import (
    advance_schedule,
    delete_schedule,
    due_schedules,
    list_schedules,
    put_schedule,
)
from services.queue.operations.shares import keep_pace, refresh_shares, set_share

__all__ = [
    "LEASE_DURATION",
    "MAX_BATCH",
    "Settled",
    "Settlement",
    "advance_schedule",
    "cancel_job",
    "cancelled_leases",
    "claim",
    "count_jobs",
    "delete_schedule",
    "due_schedules",
    "end_overdue",
    "enqueue",
    "forget",
    "forget_earlier_life",
    "get_job",
    "keep_pace",
    "leases_of",
    "list_jobs",
    "list_schedules",
    "open_session",
    "pause",
    "promote_due",
    "put_schedule",
    "reap",
    "refresh_shares",
    "renew_sessions",
    "resume",
    "retry_job",
    "set_share",
    "settle",
    "withdraw",
    "withdraw_orphans",
]
