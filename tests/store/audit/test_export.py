"""An export proves itself: whoever has the public key finds every damage in it, without the box."""

import csv
import io
import json
import random
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.audit import operations, verifier
from services.audit.checkpoint import SigningKey
from services.audit.exporting import ChainIsWhole, Form, export
from services.audit.record import Filter, now
from services.kit.outbox import Who
from tests.store.audit.room import ALICE, ONE, TWO, Rig, a_record

Lines = list[dict[str, Any]]


async def written(rig: Rig, form: Form, **wanted: Any) -> str:
    """An export as a text."""
    pieces = export(rig.room.store, rig.room.notary, Filter(ONE, **wanted), form)
    return b"".join([piece async for piece in pieces]).decode()


class Proof:
    """An export with what an auditor has beside it."""

    def __init__(self, rig: Rig, text: str) -> None:
        self.lines: Lines = [json.loads(line) for line in text.splitlines()]
        self.key = verifier.Key.read(rig.room.notary.key.verifier_key)
        self.published = (rig.home / "audit" / "checkpoints").read_text()

    @property
    def records(self) -> Lines:
        """The lines of records."""
        return [line for line in self.lines if line["kind"] == "record"]

    def found(self, lines: Lines | None = None, **other: Any) -> set[str]:
        """The names of the damage in the export, changed or not."""
        with_what: dict[str, Any] = {"key": self.key, "published": self.published} | other
        texts = [json.dumps(line) for line in (self.lines if lines is None else lines)]
        return {kind for kind, _, _ in verifier.verify(texts, **with_what).damages}


@pytest.fixture
async def proof(rig: Rig) -> Proof:
    await rig.fill()
    return Proof(rig, await written(rig, Form.CHAIN))


def test_a_true_export_is_whole(proof: Proof) -> None:
    assert proof.found() == set()
    assert [line["kind"] for line in proof.lines] == ["head", *["record"] * 10, "checkpoint"]
    assert "00000000-0000-0000-0000-00000000000c" not in json.dumps(proof.lines), "it tells of another tenant"


def swapped(lines: Lines, one: int, other: int) -> Lines:
    lines = [*lines]
    lines[one], lines[other] = lines[other], lines[one]
    return lines


def renumbered(lines: Lines, one: int, other: int) -> Lines:
    lines = [dict(line) for line in swapped(lines, one, other)]
    lines[one]["sequence"], lines[other]["sequence"] = lines[other]["sequence"], lines[one]["sequence"]
    return lines


@pytest.mark.parametrize(
    ("damage", "name"),
    [
        (lambda lines: [*lines[:4], *lines[5:]], "MISSING"),
        (lambda lines: [lines[0], *lines[2:]], "MISSING"),
        (lambda lines: [*lines[:-2], lines[-1]], "MISSING"),
        (lambda lines: [lines[0] | {"records": 9}, *lines[1:-2], lines[-1]], "MISSING"),
        (lambda lines: swapped(lines, 3, 7), "REORDERED"),
        (lambda lines: renumbered(lines, 3, 4), "REORDERED"),
        (lambda lines: renumbered(lines, 3, 7), "REORDERED"),
        (lambda lines: [*lines[:5], lines[5] | {"body": None}, *lines[6:]], "MISSING"),
        (lambda lines: [*lines[:5], lines[5] | {"body": lines[6]["body"]}, *lines[6:]], "BODY_CHANGED"),
        (lambda lines: [*lines[:5], lines[5] | {"target": "turn:x"}, *lines[6:]], "CHANGED"),
        (lambda lines: [*lines[:-1], lines[-1] | {"sequence": 9}], "CHECKPOINT_FORGED"),
        (lambda lines: [*lines[:-1], lines[-1] | {"proof": []}], "CHECKPOINT_FORGED"),
        (lambda lines: lines[:-1], "MISSING"),
    ],
)
def test_planted_damage_is_named(proof: Proof, damage: Callable[[Lines], Lines], name: str) -> None:
    assert name in proof.found(damage(proof.lines))


async def test_an_export_of_a_database_that_was_rolled_back(rig: Rig, proof: Proof) -> None:
    await rig.fill(4)
    later = (rig.home / "audit" / "checkpoints").read_text()
    assert proof.found(published=later) == set(), "an old export is no damage"
    # Made now, it would have to hold what was published by then.
    claimed = proof.lines[0] | {"export_time": (now() + timedelta(seconds=2)).isoformat()}
    assert proof.found([claimed, *proof.lines[1:]], published=later) == {"ROLLED_BACK"}


async def test_a_chain_that_was_written_anew(rig: Rig, proof: Proof) -> None:
    other = SigningKey(Ed25519PrivateKey.generate())
    assert "CHECKPOINT_FORGED" in proof.found(key=verifier.Key.read(other.verifier_key))
    before, lines = bytes(32), [dict(line) for line in proof.lines]
    lines[3]["target"] = "turn:other"
    for line in lines[1:-1]:
        before = verifier._hash(line, before)
        line["hash"] = before.hex()
    assert proof.found(lines) == {"CHANGED"}
    lines[-1]["hash"] = before.hex()
    assert proof.found(lines) == {"CHECKPOINT_FORGED"}
    rig.room.notary.key = other
    async with rig.room.store.transaction() as tx:
        lines[-1]["note"] = other.sign(await tx.checkpoints.heads(), now(), None).note
    assert "CHECKPOINT_FORGED" in proof.found(lines)


async def test_erasure_keeps_the_chain_valid(rig: Rig) -> None:
    await rig.fill()
    assert await operations.erase_user(rig.room.store, Who(ONE, "user:boss", TWO), ALICE) == 6
    await rig.checkpoint()
    assert (await rig.verify()).whole
    text = await written(rig, Form.CHAIN)
    proof = Proof(rig, text)
    assert proof.found() == set()
    assert sum(line["body"] is None for line in proof.records) == 6
    assert proof.records[-1]["target"] == f"user:{ALICE}"
    without = [line for line in proof.lines if line.get("action") != "data.audit_erase"]
    assert "MISSING" in proof.found(without)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_changed_byte_never_goes_unseen(proof: Proof, data: st.DataObject) -> None:
    """Whatever byte of an export is changed: it is found, or the export still says the same."""
    text = "\n".join(json.dumps(line, ensure_ascii=False, separators=(",", ":")) for line in proof.lines) + "\n"
    raw = bytearray(text.encode())
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place] ^= 1 << data.draw(st.integers(0, 7))
    try:
        lines = raw.decode().split("\n")[:-1] if raw.endswith(b"\n") else raw.decode().split("\n")
        found = verifier.verify(lines, proof.key, proof.published)
    except (verifier.NotAnExport, UnicodeDecodeError):
        return
    if not found.damages:
        assert _meaning([json.loads(line) for line in lines]) == _meaning(proof.lines)


def _meaning(lines: Lines) -> object:
    """What an export says, but for when it says to have been made."""
    return [{name: value for name, value in line.items() if name != "export_time"} for line in lines]


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.randoms(use_true_random=False))
def test_lines_in_any_other_order_are_found(proof: Proof, chance: random.Random) -> None:
    lines = [*proof.lines]
    for _ in range(chance.randint(1, 3)):
        match chance.randint(0, 2):
            case 0:
                lines.pop(chance.randrange(len(lines)))
            case 1:
                lines.insert(chance.randrange(len(lines) + 1), chance.choice(proof.lines))
            case _:
                chance.shuffle(lines)
    if lines != proof.lines:
        try:
            assert proof.found(lines)
        except verifier.NotAnExport:
            return


@given(st.lists(st.text(max_size=200), max_size=5))
def test_what_is_no_export_is_said_to_be_none(lines: list[str]) -> None:
    key = verifier.Key.read(SigningKey(Ed25519PrivateKey.generate()).verifier_key)
    with pytest.raises(verifier.NotAnExport):
        verifier.verify(lines, key)


def test_the_verifier_is_one_file_that_runs_anywhere(rig: Rig, proof: Proof, tmp_path: Path) -> None:
    program = tmp_path / "verifier.py"
    program.write_bytes(Path(verifier.__file__).read_bytes())
    text = "\n".join(json.dumps(line) for line in proof.lines) + "\n"
    (tmp_path / "export.jsonl").write_text(text)
    (tmp_path / "damaged.jsonl").write_text(text.replace("turn:0", "turn:1", 1))
    (tmp_path / "cut.jsonl").write_text(text[:-100])

    def run(export: str) -> tuple[int, str]:
        words = [export, "--checkpoints", str(rig.home / "audit" / "checkpoints"), "--public-key"]
        argv = [sys.executable, "-I", str(program), *words, rig.room.notary.key.verifier_key]
        done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    assert run("export.jsonl")[0] == 0
    assert run("damaged.jsonl") == (1, run("damaged.jsonl")[1])
    assert "CHANGED 1" in run("damaged.jsonl")[1]
    assert run("cut.jsonl")[0] == 2


async def test_a_chain_has_no_filter(rig: Rig) -> None:
    with pytest.raises(ChainIsWhole):
        await written(rig, Form.CHAIN, action="agent.*")


async def test_csv_is_harmless_and_filtered(rig: Rig) -> None:
    evil = a_record(action="file.write")
    object.__setattr__(evil, "target", "=cmd|' /C calc'!A0")
    await rig.append(a_record(), evil)
    rows = list(csv.DictReader(io.StringIO(await written(rig, Form.CSV, action="file.*"))))
    assert [(row["action"], row["target"], row["ip_address"]) for row in rows] == [
        ("file.write", "'=cmd|' /C calc'!A0", "10.0.0.1")
    ]


async def test_ocsf_events_have_what_a_siem_asks_for(rig: Rig) -> None:
    await rig.append(a_record(), a_record(action="auth.login"), a_record(action="auth.denied"))
    events = [json.loads(line) for line in (await written(rig, Form.OCSF)).splitlines()]
    assert [event["class_uid"] for event in events] == [6003, 3002, 6003]
    assert [event["status_id"] for event in events] == [1, 1, 2]
    for event in events:
        assert event["type_uid"] == event["class_uid"] * 100 + event["activity_id"]
        assert event["metadata"]["version"] == "1.3.0"
        assert event["src_endpoint"] == {"ip": "10.0.0.1"}
        assert event["time"] == 1767268800000
