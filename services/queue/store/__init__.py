"""The queue's tables: named queries in, nouns out."""

from services.queue.store.connections import QUERIES, ROW_BY_ROW, SCHEMA, STEADY_PLANS, Store
from services.queue.store.transaction import QueueTransaction

__all__ = ["QUERIES", "ROW_BY_ROW", "SCHEMA", "STEADY_PLANS", "QueueTransaction", "Store"]
