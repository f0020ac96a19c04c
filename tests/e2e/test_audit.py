"""The audit log of a whole box: over REST, through crashes, and proven without the box."""

import csv
import io
import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.kit.ids import OPERATOR
from tests.e2e.mesh import ROOT, Box, box, until

ROUNDS = 8


@pytest.fixture(scope="module")
def audited() -> Iterator[Box]:
    """A box of its own, whose PostgreSQL waits for the disk as everybody's does."""
    with box(OIAB_DEMO_MODEL="false") as made:
        yield made


def report(audited: Box, *, full: bool = True) -> dict[str, Any]:
    """What a verification says, after how far it was."""
    with audited.http() as http:
        told = http.post("/v1/admin/audit-log/verify", json={"full": full}).raise_for_status().json()
    assert [one["done"] for one in told] == [False] * (len(told) - 1) + [True]
    found: dict[str, Any] = told[-1]
    return found


def test_the_log_over_rest(audited: Box, tmp_path: Path) -> None:
    audited.session()
    until(lambda: bool(targets(audited, "agent.session_create")), 30)  # a record follows its action
    with audited.http() as http:
        answer = http.get("/v1/admin/audit-log/export", params={"format": "EXPORT_FORMAT_CSV"})
        assert answer.headers["content-type"] == "text/csv; charset=utf-8"
        assert "agent.session_create" in {row["action"] for row in csv.DictReader(io.StringIO(answer.text))}
        ocsf = http.get("/v1/admin/audit-log/export", params={"format": "EXPORT_FORMAT_OCSF", "action": "agent.*"})
        assert {json.loads(line)["class_uid"] for line in ocsf.text.splitlines()} == {6003}
        refused = http.get("/v1/admin/audit-log/export", params={"format": "EXPORT_FORMAT_CHAIN", "action": "agent.*"})
        assert (refused.status_code, refused.json()["code"]) == (400, 3)
        key = http.get("/v1/admin/audit-log/key").json()["publicKey"]
        chain = http.get("/v1/admin/audit-log/export", params={"format": "EXPORT_FORMAT_CHAIN"})
        until(lambda: http.get("/v1/admin/audit-log/checkpoints").json()["checkpoints"], 30)
    assert not report(audited)["damages"]
    until((audited.home / "audit" / "checkpoints").exists, 30)
    assert proven(audited, key, chain.text, tmp_path) == 0
    assert proven(audited, key, chain.text.replace("agent.session_create", "agent.session_delete", 1), tmp_path) == 1
    until(lambda: targets(audited, "data.export") == {"audit:csv", "audit:ocsf", "audit:chain"}, 30)


def targets(audited: Box, action: str) -> set[str]:
    """What an action was done to, by the log."""
    with audited.http() as http:
        records = http.get("/v1/admin/audit-log", params={"action": action}).json()["records"]
    return {record["target"] for record in records}


def proven(audited: Box, key: str, export: str, folder: Path) -> int:
    """The exit code of the standalone verifier."""
    (folder / "export.jsonl").write_text(export)
    words = [
        str(folder / "export.jsonl"),
        "--public-key",
        key,
        "--checkpoints",
        str(audited.home / "audit/checkpoints"),
    ]
    argv = [sys.executable, str(ROOT / "services" / "audit" / "verifier.py"), *words]
    return subprocess.run(argv, check=False, timeout=60).returncode


def test_what_is_about_a_user_can_be_erased(audited: Box) -> None:
    audited.session()
    with audited.http() as http:
        until(lambda: http.get("/v1/admin/audit-log", params={"action": "agent.*"}).json()["records"], 10)
        erased = http.post("/v1/admin/audit-log/erase", json={"userId": str(OPERATOR)}).raise_for_status().json()
        assert int(erased["erased"]) > 0
        found = http.get("/v1/admin/audit-log", params={"action": "data.audit_erase"}).json()["records"]
    assert [(record["target"], record["actor"]) for record in found] == [(f"user:{OPERATOR}", f"user:{OPERATOR}")]
    assert not report(audited)["damages"]


def test_no_crash_leaves_an_action_without_its_record(audited: Box) -> None:
    """Sessions and providers are made and removed while whoever records, brings and seals is killed."""
    stop, done = threading.Event(), list[tuple[str, str]]()
    actor = threading.Thread(target=act, args=(audited, stop, done))
    actor.start()
    chance = random.Random(7)
    try:
        for number in range(ROUNDS):
            time.sleep(chance.uniform(0.2, 1.5))
            audited.kill(("audit", "api", "runtime", "queue")[number % 4])
            until(lambda: not whole_or_away(audited), 60)
    finally:
        stop.set()
        actor.join(60)
    assert len(done) > 20

    def missing() -> set[tuple[str, str]]:
        return set(done) - recorded(audited)

    until(lambda: not missing(), 30)
    assert not report(audited)["damages"]
    kept = recorded(audited)
    with audited.http() as http:
        there = {session["sessionId"] for session in all_of(http, "/v1/sessions", "sessions")}
    made = {target for action, target in kept if action == "agent.session_create"}
    gone = {target for action, target in kept if action == "agent.session_delete"}
    assert {f"session:{session}" for session in there} <= made
    assert not {f"session:{session}" for session in there} & gone
    providers = [target for action, target in kept if action.startswith("admin.provider_")]
    assert providers


def whole_or_away(audited: Box) -> list[Any] | bool:
    """The damage, or True while nobody answers."""
    try:
        found: list[Any] = report(audited)["damages"]
    except (httpx.HTTPError, ValueError):
        return True
    assert not found
    return found


def act(audited: Box, stop: threading.Event, done: list[tuple[str, str]]) -> None:
    """Make and remove things, and remember what was confirmed."""
    number = 0
    with audited.http() as http:
        while not stop.is_set():
            number += 1
            name = f"p{number}"
            provider = {
                "providerId": name,
                "kind": "PROVIDER_KIND_OLLAMA",
                "models": ["m"],
                "baseUrl": "http://127.0.0.1:9",
            }
            try:
                session = http.post("/v1/sessions", json={}).raise_for_status().json()["session"]["sessionId"]
                done.append(("agent.session_create", f"session:{session}"))
                if number % 2:
                    http.delete(f"/v1/sessions/{session}").raise_for_status()
                    done.append(("agent.session_delete", f"session:{session}"))
                if number % 4 == 0:
                    http.post("/v1/admin/queue:resume", json={"kind": name}).raise_for_status()
                    done.append(("admin.queue_resume", f"queue:{name}"))
                if number % 5 == 0:
                    http.post("/v1/providers", json={"provider": provider}).raise_for_status()
                    done.append(("admin.provider_create", f"provider:{name}"))
                    http.delete(f"/v1/providers/{name}").raise_for_status()
                    done.append(("admin.provider_delete", f"provider:{name}"))
            except httpx.HTTPError:
                time.sleep(0.1)


def recorded(audited: Box) -> set[tuple[str, str]]:
    """What is on record."""
    with audited.http() as http:
        return {(record["action"], record["target"]) for record in all_of(http, "/v1/admin/audit-log", "records")}


def all_of(http: httpx.Client, path: str, name: str) -> list[dict[str, Any]]:
    """Every item of a list."""
    token, found = "", list[dict[str, Any]]()
    while True:
        page = http.get(path, params={"pageSize": 500, "pageToken": token}).raise_for_status().json()
        found += page.get(name, [])
        if not (token := page.get("nextPageToken", "")):
            return found
