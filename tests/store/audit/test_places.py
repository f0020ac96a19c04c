"""Second places for checkpoints: what is published stays, failures are told and tried again, and hold up nothing."""

import hashlib
import hmac
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer
from pydantic import SecretStr

from services.audit import verifier
from services.audit.places import FilePlace, PlaceUnreachable, S3Place, WebhookPlace, split_notes
from tests.store.audit.room import Rig


class Hook:
    """An address that takes what it is sent, or refuses."""

    def __init__(self) -> None:
        self.taken: list[tuple[bytes, str]] = []
        self.status = 200
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if hook.status == 200:
                    hook.taken.append((body, self.headers.get("x-oiab-signature", "")))
                self.send_response(hook.status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                return

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/checkpoints"


@pytest.fixture
def hook() -> Iterator[Hook]:
    found = Hook()
    thread = threading.Thread(target=found.server.serve_forever)
    thread.start()
    yield found
    found.server.shutdown()
    thread.join()
    found.server.server_close()


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    for name, value in (
        ("AWS_ACCESS_KEY_ID", "a"),
        ("AWS_SECRET_ACCESS_KEY", "b"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
    ):
        monkeypatch.setenv(name, value)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket="proofs")
    yield endpoint
    server.stop()


async def test_every_place_gets_every_checkpoint_once_and_in_order(rig: Rig, hook: Hook, s3: str) -> None:
    bucket, secret = S3Place("proofs", "oiab/", s3), SecretStr("shared")
    rig.room.notary.places = [*rig.room.notary.places, bucket, WebhookPlace(hook.url, secret)]
    await rig.fill()
    await rig.checkpoint()
    async with rig.room.store.transaction() as tx:
        notes = [note for _, note, _ in await tx.checkpoints.after(0, 10)]
    assert len(notes) == 2

    key = rig.room.notary.key
    text = (rig.home / "audit" / "checkpoints").read_text()
    assert split_notes(text, key.origin) == notes
    assert (rig.home / "audit" / "checkpoints").stat().st_mode & 0o777 == 0o600
    client = boto3.client("s3", endpoint_url=s3)
    found = client.list_objects_v2(Bucket="proofs")["Contents"]
    assert [one["Key"] for one in found] == [f"oiab/{10**19 - 1 - size:019}-{size}.checkpoint" for size in (20, 10)]
    assert bucket.newest() == notes[-1]
    assert [body.decode() for body, _ in hook.taken] == notes
    for body, signature in hook.taken:
        assert signature == f"sha256={hmac.new(b'shared', body, hashlib.sha256).hexdigest()}"


def test_a_bucket_keeps_what_it_has(s3: str) -> None:
    place = S3Place("proofs", "kept/", s3)
    place.push(5, "first\n")
    place.push(5, "other\n")
    assert place.newest() == "first\n"
    place.push(40, "second\n")
    place.push(6, "older\n")
    assert place.newest() == "second\n"


async def test_a_place_that_is_away_holds_up_nothing(rig: Rig, hook: Hook, s3: str) -> None:
    hook.status = 503
    away = WebhookPlace(hook.url)
    with pytest.raises(PlaceUnreachable, match="503"):
        away.push(1, "x")
    with pytest.raises(PlaceUnreachable):
        S3Place("no-such-bucket", "", s3).push(1, "x")
    rig.room.notary.places = [away]
    for _ in range(2):
        with pytest.raises(PlaceUnreachable):
            await rig.fill(2)
    hook.status = 200
    await rig.checkpoint()
    async with rig.room.store.transaction() as tx:
        notes = [note for _, note, _ in await tx.checkpoints.after(0, 10)]
    assert [body.decode() for body, _ in hook.taken] == notes


async def test_a_torn_note_is_left_out_and_nothing_after_it_is_lost(rig: Rig) -> None:
    await rig.fill()
    path, origin = rig.home / "audit" / "checkpoints", rig.room.notary.key.origin
    whole = path.read_text()
    notes = split_notes(whole, origin)
    for cut in range(len(notes[-1].encode())):
        path.write_bytes((notes[0] + notes[1]).encode()[: len(notes[0].encode()) + cut])
        assert split_notes(path.read_text(errors="replace"), origin) == notes[:1], cut
        FilePlace(path, origin).push(20, notes[1])
        assert split_notes(path.read_text(errors="replace"), origin) == notes, cut
        assert verifier.split_notes(path.read_text(errors="replace"), origin) == notes, cut
        assert FilePlace(path, origin).newest() == notes[1]


def test_an_empty_place_has_no_newest(tmp_path: Path, s3: str) -> None:
    assert FilePlace(tmp_path / "none", "origin").newest() is None
    assert S3Place("proofs", "nothing/", s3).newest() is None
