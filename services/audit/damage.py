"""What can be wrong with the log, by name, and what a verification says of it."""

from dataclasses import dataclass, field
from enum import Enum
from uuid import UUID


class Kind(Enum):
    """The kind of a damage."""

    CHANGED = "changed"
    """A record is not what it was when it was sealed."""
    MISSING = "missing"
    """A record, or its body, is gone, and no record says that it was erased."""
    REORDERED = "reordered"
    """Records stand in other places than those in which they were sealed."""
    BODY_CHANGED = "body changed"
    """The erasable part of a record is not what it was."""
    ROLLED_BACK = "rolled back"
    """The database is older than what was published, or went another way since."""
    CHECKPOINT_FORGED = "checkpoint forged"
    """A checkpoint is not what the log's key has signed, or not what it says."""


@dataclass(frozen=True)
class Damage:
    """One thing that is wrong.

    Attributes:
        kind: What kind it is.
        sequence: The record, or the size of the checkpoint.
        told: What exactly, in words.
        tenant_id: Whose chain it is in. None: a checkpoint's.
    """

    kind: Kind
    sequence: int
    told: str
    tenant_id: UUID | None = None


@dataclass
class Report:
    """What a verification found.

    Attributes:
        records: How many records were looked at.
        checkpoints: How many checkpoints were.
        size: How many records the newest checkpoint covers.
        damages: What is wrong, the first of each chain first.
    """

    records: int = 0
    checkpoints: int = 0
    size: int = 0
    damages: list[Damage] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """Whether nothing is wrong."""
        return not self.damages
