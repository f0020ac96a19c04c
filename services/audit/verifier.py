"""Verifies an export of the audit log without the box: one file, the standard library and `cryptography`.

    python verifier.py export.jsonl --checkpoints checkpoints --public-key 'orginabox.dev/audit/...+...+...'

It recomputes every hash of the chain and every commitment of a body, follows the Merkle proof from the end of the chain
to the newest checkpoint in the export, and verifies that checkpoint's signature by the public key. With the checkpoints
that were published elsewhere it also finds a database that was rolled back, or that went another way since. Get the
public key and the checkpoints from where whoever runs the database cannot change them.

This program shares no code with the service that wrote the log: docs/pages/understand/audit-format.md is all that both
have in common. Exit codes: 0 whole, 1 damaged, 2 not an export.
"""

import argparse
import base64
import hashlib
import json
import struct
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

FORMAT = "orginabox.audit.export/1"
RECORD_TAG = b"orginabox.audit.record.v1\n"
BODY_TAG = b"orginabox.audit.body.v1\n"
LEAF_TAG = b"orginabox.audit.head.v1\n"
ERASE, EXPIRE = "data.audit_erase", "data.audit_expire"
EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
DASH = "\N{EM DASH} "
TORN = "--- torn ---"
MOST = 20
FIELDS = {
    "head": {"kind", "format", "tenant_id", "export_time", "records", "public_key"},
    "record": {
        "kind", "tenant_id", "sequence", "record_id", "user_id", "actor", "action", "target", "session_id", "channel",
        "duration_us", "create_time", "append_time", "commitment", "hash", "body",
    },
    "checkpoint": {"kind", "note", "sequence", "hash", "proof"},
}  # fmt: skip
BODY_FIELDS = {"salt", "ip_address", "user_agent", "payload"}


class NotAnExport(Exception):
    """The file is not an export of a chain, or not a whole one."""


class Forged(Exception):
    """A checkpoint is not what the key has signed."""


@dataclass(frozen=True)
class Key:
    """The public key of a log, in the form `<origin>+<id>+<base64>` of signed notes."""

    origin: str
    id: bytes
    public: bytes
    text: str

    @classmethod
    def read(cls, text: str) -> "Key":
        """Read a key, given as itself."""
        try:
            origin, key_id, encoded = text.strip().split("+", 2)
            data = base64.b64decode(encoded, validate=True)
        except ValueError as error:
            raise NotAnExport("the public key has not the form <origin>+<id>+<base64>") from error
        wanted = hashlib.sha256(f"{origin}\n".encode() + data).digest()[:4]
        if len(data) != 33 or data[:1] != b"\1" or wanted.hex() != key_id:  # noqa: PLR2004 - a kind and 32 bytes
            raise NotAnExport("the public key is damaged: its id does not belong to it")
        return cls(origin, wanted, data[1:], text.strip())


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose signature was verified."""

    size: int
    root: bytes
    time: datetime
    note: str


@dataclass
class Findings:
    """What was found."""

    records: int = 0
    erased: int = 0
    damages: list[tuple[str, int, str]] = field(default_factory=list)
    told: list[str] = field(default_factory=list)

    def add(self, kind: str, sequence: int, message: str) -> None:
        """Something is wrong."""
        self.damages.append((kind, sequence, message))


def main(words: list[str] | None = None) -> int:
    """Run the program."""
    parser = argparse.ArgumentParser(description="Verify an export of the audit log.")
    parser.add_argument("export", type=Path, help="what `oiab audit export --format chain` wrote")
    parser.add_argument("--checkpoints", type=Path, help="the checkpoints that were published, a file of notes")
    parser.add_argument("--public-key", required=True, help="the key that `oiab audit key` prints, or a file with it")
    asked = parser.parse_args(words)
    try:
        key = Key.read(Path(asked.public_key).read_text() if Path(asked.public_key).is_file() else asked.public_key)
        published = asked.checkpoints.read_text(errors="replace") if asked.checkpoints else None
        with asked.export.open(encoding="utf-8", errors="strict") as lines:
            found = verify(lines, key, published)
    except (NotAnExport, OSError, UnicodeDecodeError) as error:
        print(f"NOT AN EXPORT: {error}", file=sys.stderr)  # noqa: T201 - a program for a terminal
        return 2
    for kind, sequence, message in found.damages[:MOST]:
        print(f"{kind} {sequence}: {message}")  # noqa: T201
    for line in found.told:
        print(line)  # noqa: T201
    print("DAMAGED" if found.damages else "WHOLE")  # noqa: T201
    return 1 if found.damages else 0


def verify(lines: Iterable[str], key: Key, published: str | None = None) -> Findings:
    """Verify an export.

    Args:
        lines: The lines of the export.
        key: The public key of the log.
        published: The text of the checkpoints that were published.

    Raises:
        NotAnExport: There is something else in the lines.
    """
    found = Findings()
    documents = _documents(lines)
    head = next(documents, None)
    if head is None or head.get("kind") != "head" or head.get("format") != FORMAT:
        raise NotAnExport(f"the first line is not the head of a {FORMAT}")
    records, checkpoint = list[dict[str, Any]](), None
    for document in documents:
        if document.get("kind") == "record" and checkpoint is None:
            records.append(document)
        elif document.get("kind") == "checkpoint" and checkpoint is None:
            checkpoint = document
        else:
            raise NotAnExport(f"a line of kind {str(document.get('kind'))[:40]!r} has no place where it stands")
    if head["public_key"] != key.text:
        found.add("CHECKPOINT_FORGED", 0, "the export names another key")
    try:
        ends = _chain(str(head["tenant_id"]), records, found)
        _count(_int(head["records"]), records, found)
        signed = _checkpoint(str(head["tenant_id"]), checkpoint, ends, key, found)
        _published(datetime.fromisoformat(str(head["export_time"])), signed, published, key, found)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, struct.error) as error:
        raise NotAnExport(f"a field is missing or is not what it has to be: {error!r:.120}") from error
    found.told.insert(0, f"{found.records} records, {found.erased} of them without their body, as the chain says")
    return found


def _documents(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(lines, 1):
        try:
            document = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise NotAnExport(f"line {number} is not JSON: the file is damaged or cut off") from error
        if not isinstance(document, dict):
            raise NotAnExport(f"line {number} is not a JSON object")
        _require_fields(document)
        yield document


def _chain(tenant: str, records: list[dict[str, Any]], found: Findings) -> dict[int, bytes]:
    """Verify the chain, and return the hash of each record as it follows from what is in the file."""
    erasures = [record for record in records if record["action"] in {ERASE, EXPIRE}]
    hashes, before, expected = dict[int, bytes](), bytes(32), 1
    suspects = list[tuple[dict[str, Any], bytes]]()
    for record in records:
        sequence = _int(record["sequence"])
        if sequence > expected:
            found.add("MISSING", expected, f"records {expected} to {sequence - 1} are not there")
        elif sequence < expected:
            found.add("REORDERED", sequence, "it stands behind a later one")
        stored = _hex(record["hash"])
        if record["tenant_id"] != tenant:
            found.add("CHANGED", sequence, "it is a record of another tenant")
        elif _hash(record, before) != stored:
            suspects.append((record, before))
        _body(record, erasures, found)
        hashes[sequence], before, expected = stored, stored, sequence + 1
    gaps = {sequence for kind, sequence, _ in found.damages if kind == "MISSING"}
    for record, _ in suspects:
        _name(record, hashes, [other["sequence"] for other, _ in suspects], gaps, found)
    found.records = len(records)
    return hashes


def _name(record: dict[str, Any], hashes: dict[int, bytes], places: list[int], gaps: set[int], found: Findings) -> None:
    """What is wrong with a record whose hash does not follow from the one before it."""
    sequence, stored = _int(record["sequence"]), _hex(record["hash"])
    near = {0: bytes(32)} | {at: hashes[at] for place in places[:MOST] for at in (place - 1, place) if at in hashes}
    for other in places[:MOST]:
        if other != sequence and any(_hash(record, before, other) == stored for before in near.values()):
            found.add("REORDERED", sequence, f"it was sealed as record {other}")
            return
    if any(gap < sequence and sequence - 1 not in hashes for gap in gaps):
        return  # what comes after a gap cannot follow from what is not there
    found.add("CHANGED", sequence, "it is not as it was sealed, or does not follow from the one before")


def _hash(record: dict[str, Any], before: bytes, sequence: int | None = None) -> bytes:
    user = _uuid(record["user_id"]) if record["user_id"] else b""
    took = struct.pack(">q", record["duration_us"]) if record["duration_us"] is not None else b""
    fixed = struct.pack(
        ">16sq16sqq32s",
        _uuid(record["tenant_id"]),
        _int(record["sequence"]) if sequence is None else sequence,
        _uuid(record["record_id"]),
        _microseconds(record["create_time"]),
        _microseconds(record["append_time"]),
        _hex(record["commitment"]),
    )
    texts = [record[name].encode() for name in ("actor", "action", "target", "session_id", "channel")]
    layout = fixed + b"".join(struct.pack(">I", len(part)) + part for part in (user, took, *texts))
    return hashlib.sha256(RECORD_TAG + before + layout).digest()


def _body(record: dict[str, Any], erasures: list[dict[str, Any]], found: Findings) -> None:
    body, sequence = record["body"], _int(record["sequence"])
    if body is None:
        found.erased += 1
        if not any(_covers(erasure, record) for erasure in erasures):
            found.add("MISSING", sequence, "its body is gone, and no record says that it was erased")
        return
    parts = [body[name].encode() for name in ("ip_address", "user_agent", "payload")]
    layout = b"".join(struct.pack(">I", len(part)) + part for part in parts)
    if hashlib.sha256(BODY_TAG + _hex(body["salt"]) + layout).hexdigest() != record["commitment"]:
        found.add("BODY_CHANGED", sequence, "its body is not as it was sealed")


def _covers(erasure: dict[str, Any], record: dict[str, Any]) -> bool:
    """Whether a later record says that the body of this one was erased."""
    if _int(erasure["sequence"]) <= _int(record["sequence"]):
        return False
    if erasure["action"] == ERASE:
        return bool(record["user_id"]) and erasure["target"] == f"user:{record['user_id']}"
    category, _, until = str(erasure["target"]).partition(":")
    created = datetime.fromisoformat(record["create_time"])
    return category == record["action"].partition(".")[0] and created.timestamp() < float(until)


def _count(told: int, records: list[dict[str, Any]], found: Findings) -> None:
    last = _int(records[-1]["sequence"]) if records else 0
    if last < told:
        found.add("MISSING", last + 1, f"the export says {told} records, and ends with {last}")
    elif last > told:
        found.add("CHANGED", told + 1, f"the export says {told} records, and goes on")


def _checkpoint(
    tenant: str, document: dict[str, Any] | None, hashes: dict[int, bytes], key: Key, found: Findings
) -> Checkpoint | None:
    """Verify the checkpoint in the export, and that it was signed over the end of this chain."""
    if document is None:
        if hashes:
            found.add("MISSING", max(hashes), "the checkpoint that proves the end of the chain is not there")
        return None
    try:
        signed = read_note(str(document["note"]), key)
    except Forged as error:
        found.add("CHECKPOINT_FORGED", 0, str(error))
        return None
    sequence, end = _int(document["sequence"]), _hex(document["hash"])
    leaf = hashlib.sha256(b"\0" + LEAF_TAG + _uuid(tenant) + struct.pack(">Q", sequence) + end).digest()
    for step in document["proof"]:
        beside = _hex(step["hash"])
        pair = beside + leaf if step["side"] == "left" else leaf + beside
        leaf = hashlib.sha256(b"\1" + pair).digest()
    if leaf != signed.root:
        found.add("CHECKPOINT_FORGED", signed.size, "it was not signed over this end of the chain")
    elif sequence not in hashes:
        found.add("MISSING", sequence, f"the checkpoint over {signed.size} was signed over a record that is not there")
    elif hashes[sequence] != end:
        found.add("CHANGED", sequence, f"it is not the record that the checkpoint over {signed.size} was signed over")
    found.told.append(f"checkpoint over {signed.size} records of {signed.time.isoformat()}, signed by {key.origin}")
    return signed


def _published(exported: datetime, signed: Checkpoint | None, published: str | None, key: Key, found: Findings) -> None:
    """Compare with what was published."""
    if published is None:
        found.told.append("no published checkpoints were given: that the database was not rolled back is not proven")
        return
    known = dict[int, Checkpoint]()
    for note in split_notes(published, key.origin):
        try:
            checkpoint = read_note(note, key)
        except Forged as error:
            found.add("CHECKPOINT_FORGED", 0, f"a published checkpoint: {error}")
            continue
        if (other := known.setdefault(checkpoint.size, checkpoint)).root != checkpoint.root:
            times = f"at {other.time} and {checkpoint.time}"
            found.add("ROLLED_BACK", checkpoint.size, f"two histories were published: {times}")
    if not known:
        found.add("CHECKPOINT_FORGED", 0, "there is no checkpoint of this log among the published ones")
        return
    size = signed.size if signed else 0
    if signed and size in known and known[size].root != signed.root:
        found.add("ROLLED_BACK", size, "another history was published")
    later = [other for other in known.values() if other.size > size and other.time < exported - timedelta(seconds=1)]
    if later:
        found.add("ROLLED_BACK", max(other.size for other in later), "later checkpoints had been published by then")
    found.told.append(f"{len(known)} published checkpoints, the newest over {max(known)} records")


def read_note(note: str, key: Key) -> Checkpoint:
    """Read a signed note."""
    text, _, signatures = note.partition("\n\n")
    text += "\n"
    for line in signatures.split("\n"):
        name, _, encoded = line.removeprefix(DASH).partition(" ")
        if not line.startswith(DASH) or name != key.origin:
            continue
        try:
            signature = _base64(encoded)
            if signature[:4] != key.id:
                continue
            Ed25519PublicKey.from_public_bytes(key.public).verify(signature[4:], text.encode())
            origin, size, root, time, *_ = text.split("\n")
            if origin != key.origin:
                raise Forged(f"it is a checkpoint of {origin[:80]!r}")
            when = datetime.fromisoformat(time.removeprefix("time "))
            return Checkpoint(int(size), base64.b64decode(root, validate=True), when, note)
        except (InvalidSignature, ValueError) as error:
            raise Forged("its signature is not one of the given key") from error
    raise Forged("it is not signed by the given key")


def split_notes(text: str, origin: str) -> list[str]:
    """The notes of a log in a text of notes that follow each other. A torn one is left out."""
    notes, begun = list[str](), list[str]()
    for line in text.split("\n")[:-1]:
        if line == TORN and notes and not begun:
            notes.pop()
        if line in {origin, TORN}:
            begun = []
        begun.append(line)
        if line.startswith(DASH) and begun[0] == origin:
            notes.append("\n".join(begun) + "\n")
            begun = []
    return notes


def _microseconds(text: str) -> int:
    time = datetime.fromisoformat(text)
    if time.isoformat(timespec="microseconds") != text:
        raise ValueError("a time is not written as it should be")
    return (time - EPOCH) // timedelta(microseconds=1)


# What can be written in two ways is read in one, so that no byte can be changed unseen.


def _hex(text: str) -> bytes:
    data = bytes.fromhex(text)
    if data.hex() != text:
        raise ValueError("bytes are not written in hex as they should be")
    return data


def _uuid(text: str) -> bytes:
    found = UUID(text)
    if str(found) != text:
        raise ValueError("an id is not written as it should be")
    return found.bytes


def _int(value: object) -> int:
    if type(value) is not int:
        raise TypeError("a number is not one")
    return value


def _base64(text: str) -> bytes:
    data = base64.b64decode(text, validate=True)
    if base64.b64encode(data).decode() != text:
        raise ValueError("base64 is not written as it should be")
    return data


def _require_fields(document: dict[str, Any]) -> None:
    """Exactly the fields that are known: what is not sealed must not stand beside what is."""
    kind = str(document.get("kind"))
    if document.keys() != FIELDS.get(kind):
        raise NotAnExport(f"a line of kind {kind[:40]!r} has not exactly the fields that it should have")
    body = document.get("body")
    if body is not None and (not isinstance(body, dict) or body.keys() != BODY_FIELDS):
        raise NotAnExport("the body of a record has not exactly the fields that it should have")
    for step in document.get("proof", ()):
        if not isinstance(step, dict) or step.keys() != {"hash", "side"} or step["side"] not in {"left", "right"}:
            raise NotAnExport("a step of the proof has not exactly the fields that it should have")


if __name__ == "__main__":
    sys.exit(main())
