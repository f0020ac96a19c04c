"""Writes the log out: as CSV, as OCSF events, or as the whole chain that anybody can verify."""

import csv
import io
import json
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from enum import Enum
from typing import Any

from services.audit import ocsf
from services.audit.checkpoint import Checkpoint, NoteInvalid
from services.audit.merkle import proof_of
from services.audit.notary import Notary
from services.audit.record import Filter, Record, now
from services.audit.seal import Body, Skeleton
from services.audit.store import Store
from services.kit.errors import DomainError, Kind

FORMAT = "orginabox.audit.export/1"
PAGE = 1_000
COLUMNS = (
    "sequence", "create_time", "actor", "user_id", "action", "target", "session_id", "channel", "ip_address",
    "user_agent", "duration_us", "payload", "erased", "record_id", "hash",
)  # fmt: skip
_FORMULA = ("=", "+", "-", "@", "\t", "\r")

Link = tuple[Skeleton, Body | None, bytes]


class Form(Enum):
    """In which form the log leaves, and the media type of that."""

    CSV = "text/csv; charset=utf-8"
    OCSF = "application/x-ndjson"
    CHAIN = "application/x-ndjson; profile=orginabox-audit-chain"


class ChainIsWhole(DomainError):
    """A chain is exported whole: with holes it would prove nothing."""

    kind = Kind.INVALID_ARGUMENT
    reason = "INVALID_ARGUMENT"


async def export(store: Store, notary: Notary, wanted: Filter, form: Form) -> AsyncIterator[bytes]:
    """The log in pieces, oldest first. What is appended meanwhile is not in it."""
    if form is Form.CHAIN:
        async for piece in _chain(store, notary, wanted):
            yield piece
        return
    if form is Form.CSV:
        yield _csv([COLUMNS])
    async with store.transaction() as tx:
        end = await tx.head(wanted.tenant_id)
    async for links in _pages(store, wanted, end):
        records = [record_of(link) for link in links]
        yield _csv(map(_row, records)) if form is Form.CSV else "".join(map(ocsf.line_of, records)).encode()


async def _chain(store: Store, notary: Notary, wanted: Filter) -> AsyncIterator[bytes]:
    if wanted != Filter(wanted.tenant_id):
        raise ChainIsWhole("a chain is exported whole; leave the filter away, or take another form", field="format")
    try:
        checkpoint = await notary.make()
    except NoteInvalid:  # the verification says so by name
        checkpoint = None
    end, proof = await _proof(store, wanted, checkpoint)
    head = {
        "kind": "head",
        "format": FORMAT,
        "tenant_id": str(wanted.tenant_id),
        "export_time": now().isoformat(),
        "records": end,
        "public_key": notary.key.verifier_key,
    }
    yield _line(head)
    async for links in _pages(store, wanted, end):
        yield b"".join(_line(_chain_record(*link)) for link in links)
    if proof:
        yield _line(proof)


async def _proof(store: Store, wanted: Filter, checkpoint: Checkpoint | None) -> tuple[int, dict[str, Any] | None]:
    """Up to where a chain is exported, and the proof that its end is in the newest checkpoint."""
    async with store.of_all().transaction() as tx:
        end = await tx.head(wanted.tenant_id)
        heads = await tx.checkpoints.heads_at(checkpoint.size) if checkpoint else []
    place = next((at for at, head in enumerate(heads) if head.tenant_id == wanted.tenant_id), None)
    if checkpoint is None or place is None:
        return end, None
    steps = proof_of([head.leaf() for head in heads], place)
    return heads[place].sequence, {
        "kind": "checkpoint",
        "note": checkpoint.note,
        "sequence": heads[place].sequence,
        "hash": heads[place].hash.hex(),
        "proof": [{"hash": step.hash.hex(), "side": "left" if step.left else "right"} for step in steps],
    }


async def _pages(store: Store, wanted: Filter, end: int) -> AsyncIterator[Sequence[Link]]:
    after = 0
    while after < end:
        async with store.transaction() as tx:
            links = await tx.chain(wanted, after, PAGE)
        links = [link for link in links if link[0].sequence <= end]
        if not links:
            return
        yield links
        after = links[-1][0].sequence


def _chain_record(skeleton: Skeleton, body: Body | None, found: bytes) -> dict[str, Any]:
    """A sealed record as the verifier reads it."""
    kept = {
        "salt": body.salt.hex(),
        "ip_address": body.ip_address,
        "user_agent": body.user_agent,
        "payload": body.payload,
    } if body else None  # fmt: skip
    return {
        "kind": "record",
        "tenant_id": str(skeleton.tenant_id),
        "sequence": skeleton.sequence,
        "record_id": str(skeleton.record_id),
        "user_id": str(skeleton.user_id) if skeleton.user_id else None,
        "actor": skeleton.actor,
        "action": skeleton.action,
        "target": skeleton.target,
        "session_id": skeleton.session_id,
        "channel": skeleton.channel,
        "duration_us": skeleton.duration_us,
        "create_time": skeleton.create_time.isoformat(timespec="microseconds"),
        "append_time": skeleton.append_time.isoformat(timespec="microseconds"),
        "commitment": skeleton.commitment.hex(),
        "hash": found.hex(),
        "body": kept,
    }


def record_of(link: Link) -> Record:
    """A sealed record as a record."""
    skeleton, body, found = link
    took = skeleton.duration_us
    return Record(
        tenant_id=skeleton.tenant_id,
        record_id=skeleton.record_id,
        actor=skeleton.actor,
        action=skeleton.action,
        create_time=skeleton.create_time,
        user_id=skeleton.user_id,
        target=skeleton.target,
        session_id=skeleton.session_id,
        channel=skeleton.channel,
        ip_address=body.ip_address if body else "",
        user_agent=body.user_agent if body else "",
        duration=timedelta(microseconds=took) if took is not None else None,
        payload=json.loads(body.payload) if body else {},
        sequence=skeleton.sequence,
        erased=body is None,
        hash=found,
    )


def _row(record: Record) -> list[object]:
    took = record.duration // timedelta(microseconds=1) if record.duration is not None else ""
    return [
        record.sequence,
        record.create_time.isoformat(),
        record.actor,
        record.user_id or "",
        record.action,
        record.target,
        record.session_id,
        record.channel,
        record.ip_address,
        record.user_agent,
        took,
        json.dumps(record.payload, ensure_ascii=False) if record.payload else "",
        "true" if record.erased else "",
        record.record_id,
        record.hash.hex(),
    ]


def _csv(rows: Any) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows([_harmless(cell) for cell in row] for row in rows)
    return text.getvalue().encode()


def _harmless(cell: object) -> object:
    """What a spreadsheet would read as a formula, as text: what people write is in here."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell


def _line(document: dict[str, Any]) -> bytes:
    return (json.dumps(document, ensure_ascii=False, separators=(",", ":")) + "\n").encode()
