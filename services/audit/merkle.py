"""The Merkle tree over the ends of all chains, hashed as RFC 6962 says.

Its leaves stand in the order of the tenants' ids. Whoever has one leaf and the hashes beside its way up can find the
root, and learns nothing of the other tenants.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from uuid import UUID

LEAF_TAG = b"orginabox.audit.head.v1\n"


@dataclass(frozen=True, slots=True)
class Head:
    """The end of a tenant's chain."""

    tenant_id: UUID
    sequence: int
    hash: bytes

    def leaf(self) -> bytes:
        """The hash of the leaf."""
        data = LEAF_TAG + self.tenant_id.bytes + self.sequence.to_bytes(8) + self.hash
        return sha256(b"\0" + data).digest()


@dataclass(frozen=True)
class Step:
    """One step up to the root: the hash beside the way, and on which side it stands."""

    hash: bytes
    left: bool


def root_of(leaves: Sequence[bytes]) -> bytes:
    """The root of the tree. Without leaves it is the hash of nothing."""
    if not leaves:
        return sha256(b"").digest()
    level = list(leaves)
    # A last one without a neighbour goes up as it is: the same tree as RFC 6962's split at the largest power of two.
    while len(level) > 1:
        paired = [_node(level[place], level[place + 1]) for place in range(0, len(level) - 1, 2)]
        level = paired + level[len(paired) * 2 :]
    return level[0]


def proof_of(leaves: Sequence[bytes], place: int) -> list[Step]:
    """The way from a leaf up to the root."""
    level, steps = list(leaves), list[Step]()
    while len(level) > 1:
        beside = place ^ 1
        if beside < len(level):
            steps.append(Step(level[beside], left=beside < place))
        paired = [_node(level[at], level[at + 1]) for at in range(0, len(level) - 1, 2)]
        level = paired + level[len(paired) * 2 :]
        place //= 2
    return steps


def climb(leaf: bytes, steps: Sequence[Step]) -> bytes:
    """The root to which a way leads from a leaf."""
    for step in steps:
        leaf = _node(step.hash, leaf) if step.left else _node(leaf, step.hash)
    return leaf


def _node(left: bytes, right: bytes) -> bytes:
    return sha256(b"\1" + left + right).digest()
