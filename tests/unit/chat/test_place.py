"""Where the box is, and which key opens it."""

from dataclasses import replace
from pathlib import Path

from grpc import StatusCode
from orginabox_sdk.orginabox.turn.v1 import PermissionReply
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document

from gateways.chat.permission import Answer, read_answer
from gateways.chat.place import Place, credentials_file
from gateways.chat.refusals import Exit, refusal
from gateways.chat.slash import Slash, SlashCompleter, find
from gateways.sdk import ApiError, CredentialsFile, InvalidArgument, NotFound, SignedIn, Unauthenticated, Unavailable
from services.box.home import Home


def home_with(tmp_path: Path, key: str = "", config: str = "") -> dict[str, str]:
    """An environment that names a home."""
    (tmp_path / "secrets").mkdir()
    if key:
        (tmp_path / "secrets" / "api_key").write_text(f"{key}\n")
    if config:
        (tmp_path / "config.env").write_text(config)
    return {"OIAB_HOME": str(tmp_path)}


def test_the_home_tells_all(tmp_path: Path) -> None:
    place = Place.locate(home_with(tmp_path, "secret", "OIAB_PORT=9000\n"))
    assert (place.url, place.key, place.local) == ("http://127.0.0.1:9000", "secret", True)
    assert place.key_source == str(tmp_path / "secrets" / "api_key")


def test_the_environment_wins(tmp_path: Path) -> None:
    environ = home_with(tmp_path, "secret", "OIAB_PORT=9000\nORGINABOX_API_KEY=config\n")
    assert Place.locate(environ).key == "config"
    place = Place.locate(environ | {"OIAB_PORT": "9001", "ORGINABOX_API_KEY": "mine"})
    assert (place.url, place.key, place.key_source) == ("http://127.0.0.1:9001", "mine", "ORGINABOX_API_KEY")


def test_looking_makes_nothing(tmp_path: Path) -> None:
    place = Place.locate({"OIAB_HOME": str(tmp_path / "none")})
    assert (place.url, place.key) == ("http://127.0.0.1:8787", "")
    assert not (tmp_path / "none").exists()


def test_the_key_of_the_home_is_not_told_to_others(tmp_path: Path) -> None:
    environ = home_with(tmp_path, "secret") | {"OIAB_URL": "https://box.example"}
    place = Place.locate(environ)
    assert (place.url, place.key, place.local) == ("https://box.example", "", False)
    assert Place.locate(environ | {"OIAB_URL": "localhost:8787"}).key == "secret"


def test_a_sign_in_counts_before_the_key_of_the_home_and_after_one_that_is_named(tmp_path: Path) -> None:
    environ = home_with(tmp_path, "secret")
    file = CredentialsFile(tmp_path / "credentials.json")
    file.put("http://127.0.0.1:8787", SignedIn("ada", "token"))
    place = Place.locate(environ)
    assert (place.key, place.signed_in, place.credentials) == ("", True, file.path)
    named = Place.locate(environ | {"ORGINABOX_API_KEY": "mine"})
    assert (named.key, named.signed_in) == ("mine", False)
    elsewhere = Place.locate(environ | {"OIAB_URL": "https://box.example"})
    assert (elsewhere.key, elsewhere.signed_in) == ("", False)


def test_a_terminal_without_a_home_keeps_its_sign_ins_where_programs_keep_settings(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "config")}
    found = credentials_file(Home(tmp_path / "none", tmp_path), environ)
    assert found == tmp_path / "config" / "orginabox" / "credentials.json"
    assert credentials_file(Home(tmp_path, tmp_path), environ) == tmp_path / "credentials.json"


def test_says_what_became_of_a_sign_in(tmp_path: Path) -> None:
    ended = Unauthenticated(StatusCode.UNAUTHENTICATED, "this sign-in was ended", "TOKEN_REVOKED")
    signed_in = Place("http://127.0.0.1:8787", "", "file", tmp_path, signed_in=True)
    assert "Sign in again: oiab login" in refusal(ended, signed_in).text
    wrong = Unauthenticated(StatusCode.UNAUTHENTICATED, "the handle or the password is wrong", "CREDENTIALS_REFUSED")
    assert refusal(wrong, replace(signed_in, signed_in=False)).text == "The handle or the password is wrong."
    late = Unauthenticated(StatusCode.UNAUTHENTICATED, "nobody approved the device in time", "TOKEN_EXPIRED")
    assert refusal(late, replace(signed_in, signed_in=False)).text == "Nobody approved the device in time."


def told(error: ApiError, tmp_path: Path, url: str = "http://127.0.0.1:8787", key: str = "k") -> tuple[str, Exit]:
    found = refusal(error, Place(url, key, "ORGINABOX_API_KEY", tmp_path))
    return found.text, found.code


def test_says_what_to_do(tmp_path: Path) -> None:
    down = Unavailable(StatusCode.UNAVAILABLE, "failed to connect to all addresses")
    assert told(down, tmp_path) == (
        "The box does not answer at http://127.0.0.1:8787. Start it: oiab up",
        Exit.UNREACHABLE,
    )
    assert "OIAB_URL" in told(down, tmp_path, "http://far:1")[0]
    part = Unavailable(StatusCode.UNAVAILABLE, "a part is away", "SERVICE_UNAVAILABLE")
    assert told(part, tmp_path) == ("A part is away. See which part: oiab status", Exit.UNREACHABLE)
    wrong = Unauthenticated(StatusCode.UNAUTHENTICATED, "no", "UNAUTHENTICATED")
    assert told(wrong, tmp_path)[1] is Exit.WRONG_KEY
    assert "OIAB_HOME" in told(wrong, tmp_path, key="")[0]
    assert "ORGINABOX_API_KEY" in told(wrong, tmp_path, "http://far:1", "")[0]
    gone = NotFound(StatusCode.NOT_FOUND, "no session has this id", "SESSION_NOT_FOUND")
    assert told(gone, tmp_path) == ("No session has this id. List yours: oiab sessions list", Exit.FAILED)
    bad = InvalidArgument(StatusCode.INVALID_ARGUMENT, "text: is too long", "INVALID_ARGUMENT")
    assert told(bad, tmp_path) == ("text: is too long.", Exit.USAGE)
    alien = ApiError(StatusCode.UNIMPLEMENTED, "")
    assert told(alien, tmp_path)[1] is Exit.UNREACHABLE


def test_reads_an_answer() -> None:
    assert read_answer("y") == Answer(PermissionReply.ONCE)
    assert read_answer(" Always ") == Answer(PermissionReply.ALWAYS)
    assert read_answer("n") == Answer(PermissionReply.REJECT)
    assert read_answer("n too risky") == Answer(PermissionReply.REJECT, "too risky")
    for unclear in ("", "maybe", "y please", "yn"):
        assert read_answer(unclear) is None


async def nothing(_: str) -> None:
    """Do nothing."""


COMMANDS = {
    name: Slash(name, "", "does it", nothing, lambda: [("one", "first"), ("two", "second")])
    for name in ("/status", "/sessions", "/help")
}


def completed(text: str) -> list[str]:
    completer = SlashCompleter()
    completer.commands = COMMANDS
    return [found.text for found in completer.get_completions(Document(text), CompleteEvent())]


def test_completes_slash_commands() -> None:
    assert completed("/s") == ["/status", "/sessions"]
    assert completed("/help ") == ["one", "two"]
    assert completed("/help t") == ["two"]
    assert completed("hello /s") == []
    assert completed("/s\n") == []


def test_finds_a_slash_command_by_its_beginning() -> None:
    assert find(COMMANDS, "/h  me ") == (COMMANDS["/help"], "me")
    assert find(COMMANDS, "/s") == (None, "")
    assert find(COMMANDS, "/nothing x") == (None, "x")
