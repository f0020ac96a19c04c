"""The chat in a real terminal: typing, streaming, permissions, interrupts, cuts, resuming."""

import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.chat.terminal import Terminal, terminal
from tests.fake_box.process import Relay, client_environment, running_box

KEY = "a-key"
OIAB = (sys.executable, "-m", "gateways.chat")
READY = "say something"

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is the terminal of these tests")


@dataclass(frozen=True)
class Desk:
    """A box, a way to it that can be cut, and a home."""

    relay: Relay
    environ: dict[str, str]

    def chat(self, *arguments: str, columns: int = 80, rows: int = 24) -> AbstractContextManager[Terminal]:
        """A chat in a terminal."""
        return terminal((*OIAB, "chat", *arguments), self.environ, columns, rows)

    def run(self, *arguments: str) -> AbstractContextManager[Terminal]:
        """Any command in a terminal."""
        return terminal((*OIAB, *arguments), self.environ)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """A desk with a box that runs."""
    with running_box(KEY) as port:
        relay = Relay(port)
        yield Desk(relay, client_environment(tmp_path, relay.port, KEY))
        relay.cut()


def words_of(shown: str, last: int) -> list[str]:
    """The numbered words on a screen, in order."""
    found = re.findall(r"\bword\d+\b", shown)
    assert f"word{last}" in found, shown
    return found


def test_streams_an_answer_and_says_what_it_cost(desk: Desk) -> None:
    with desk.chat() as seen:
        first = seen.wait_for(READY)
        assert "This is the demo model" in first
        seen.line("slow 60")
        running = seen.wait_for("word5", "working…")
        assert "word59" not in running
        shown = seen.wait_for("word59", "1,200 in · 34 out · $0.0015", READY)
        assert words_of(seen.screen(scrollback=True), 59) == [f"word{number}" for number in range(60)]
        assert shown.count("\u203a slow 60") == 1


def test_folds_tools_and_unfolds_them(desk: Desk) -> None:
    with desk.chat() as seen:
        seen.wait_for(READY)
        seen.line("bash ls -la")
        shown = seen.wait_for("Three lines.", READY)
        assert "✓ bash ls -la (0.4s)  /expand 1" in shown
        assert "line 2" not in shown
        seen.line("/expand 1")
        assert "line 1\nline 2\nline 3" in seen.wait_for("line 3")
        seen.keys("C-l", "C-o")
        seen.wait_for("line 3")


@pytest.mark.parametrize(
    ("answer", "follows"),
    [
        ("y", "Done as permitted."),
        ("a", "Done as permitted."),
        ("n", "Then not."),
        ("n too risky", "Then not: too risky"),
    ],
)
def test_asks_for_a_permission(desk: Desk, answer: str, follows: str) -> None:
    with desk.chat() as seen:
        seen.wait_for(READY)
        seen.line("ask rm -rf build")
        seen.wait_for("The agent wants to use bash: rm -rf build", "always permits: rm *", "permit?")
        seen.line("maybe")
        seen.wait_for("Please answer y, a or n.", "permit?")
        seen.line(answer)
        shown = seen.wait_for(follows, READY)
        assert "permit?" not in shown


def test_what_was_half_typed_comes_back_after_a_permission(desk: Desk) -> None:
    with desk.chat() as seen:
        seen.wait_for(READY)
        seen.line("slow 30")
        seen.wait_for("word1")
        seen.line("ask rm x")
        seen.wait_for("in line, 1 before it: ask rm x")
        seen.keys("-l", "half a thought")
        seen.wait_for("permit?")
        assert "half a thought" not in seen.screen()
        seen.line("y")
        seen.wait_for("Done as permitted.", "\u203a half a thought")


def test_an_interrupt_aborts_the_turn_and_not_the_program(desk: Desk) -> None:
    with desk.chat() as seen:
        seen.wait_for(READY)
        seen.line("wait")
        seen.wait_for("Waiting", "working…")
        seen.keys("C-c")
        seen.wait_for("Aborted.", READY)
        seen.line("still there?")
        seen.wait_for("You said: still there?", READY)
        seen.keys("C-c")
        seen.wait_for("Ctrl-C again leaves")
        seen.keys("C-c")
        seen.wait_for("Go on with it: oiab chat --session", "ended with 0")


def test_an_interrupt_at_a_permission_aborts_too(desk: Desk) -> None:
    with desk.chat() as seen:
        seen.wait_for(READY)
        seen.line("ask rm x")
        seen.wait_for("permit?")
        seen.keys("C-c")
        seen.wait_for("Aborted.", READY)


def test_what_is_typed_meanwhile_waits_in_line(desk: Desk) -> None:
    with desk.chat() as seen:
        seen.wait_for(READY)
        seen.line("slow 40")
        seen.wait_for("word1")
        seen.line("second")
        seen.line("third")
        seen.wait_for("in line, 1 before it: second", "in line, 2 before it: third")
        shown = seen.wait_for("You said: third", READY)
        assert shown.index("word39") < shown.index("You said: second") < shown.index("You said: third")


def test_what_waits_is_listed_reworded_removed_steered_past_and_overtaken(desk: Desk) -> None:
    with desk.chat(rows=50) as seen:
        seen.wait_for(READY)
        seen.line("/inbox")
        seen.wait_for("Nothing waits.")
        seen.line("wait")
        seen.wait_for("Waiting", "working…")
        for text in ("first", "secnd", "third"):
            seen.line(text)
            seen.wait_for(f"before it: {text}")
        seen.line("/inbox")
        seen.wait_for("1  first", "2  secnd", "3  third", "/inbox edit <n>")
        seen.line("/inbox edit 2")
        seen.wait_for("\u203a /inbox edit 2 secnd")
        seen.keys("C-u")
        seen.line("/inbox edit 2 second")
        seen.wait_for("It says now: second", "in line, 2 before it: second")
        seen.line("/inbox remove 3")
        seen.wait_for("Removed: third")
        seen.line("/inbox remove 9")
        seen.wait_for("Nothing waits at 9.")
        seen.line("/steer to the left")
        seen.wait_for("\u203a to the left")
        seen.line("/interrupt now")
        shown = seen.wait_for("Aborted.", "You said: second", READY)
        order = ["Aborted.", "You said: now", "You said: first", "You said: second"]
        assert [shown.index(text) for text in order] == sorted(shown.index(text) for text in order)
        assert "You said: third" not in shown


def test_a_failed_turn_says_why_and_the_chat_goes_on(desk: Desk) -> None:
    with desk.chat() as seen:
        seen.wait_for(READY)
        seen.line("fail")
        seen.wait_for("did not accept its key", "oiab provider update", READY)
        seen.line("again")
        seen.wait_for("You said: again")


def test_goes_on_over_a_cut_without_a_lost_or_doubled_word(desk: Desk) -> None:
    with desk.chat() as seen:
        seen.wait_for(READY)
        seen.line("slow 120")
        seen.wait_for("word10")
        desk.relay.cut()
        seen.wait_for("reconnecting…")
        desk.relay.join()
        seen.wait_until_gone("reconnecting…")
        seen.wait_for("word119", READY)
        shown = seen.screen(scrollback=True)
        assert words_of(shown, 119) == [f"word{number}" for number in range(120)], shown


def test_what_could_not_be_sent_comes_back(desk: Desk) -> None:
    with desk.chat() as seen:
        seen.wait_for(READY)
        desk.relay.cut()
        seen.line("precious words")
        seen.wait_for("The box does not answer", "\u203a precious words")
        desk.relay.join()
        seen.keys("Enter")
        seen.wait_for("You said: precious words")


def test_resumes_a_session_with_its_history(desk: Desk) -> None:
    with desk.chat() as seen:
        seen.wait_for(READY)
        seen.line("first words")
        seen.wait_for("You said: first words", READY)
        seen.line("bash ls")
        seen.wait_for("Three lines.", READY)
        seen.keys("C-d")
        session = re.search(r"--session (\S+)", seen.wait_for("ended with 0"))
    assert session
    with desk.chat("--session", session[1]) as seen:
        shown = seen.wait_for("\u203a first words", "You said: first words", "✓ bash ls  /expand 1", READY)
        assert shown.count("You said: first words") == 1
        seen.keys("Up")
        seen.wait_for("\u203a bash ls")
    with desk.chat("--continue") as seen:
        seen.wait_for("You said: first words")


def test_joins_a_turn_that_runs(desk: Desk) -> None:
    with desk.chat() as seen:
        seen.wait_for(READY)
        seen.line("slow 100")
        seen.wait_for("word5")
        seen.keys("C-d")
        seen.wait_for("What runs goes on in the box.", "ended with 0")
    with desk.chat("--continue") as seen:
        seen.wait_for("word99", READY)
        shown = seen.screen(scrollback=True)
        assert words_of(shown, 99) == [f"word{number}" for number in range(100)]
        assert shown.count("\u203a slow 100") == 1


def test_slash_commands(desk: Desk) -> None:
    with desk.chat(rows=50) as seen:
        seen.wait_for(READY)
        seen.line("hello")
        seen.wait_for("You said: hello", READY)
        seen.keys("-l", "/au")
        seen.wait_for("show who did what")
        seen.keys("Tab")
        seen.wait_for("\u203a /audit")
        seen.keys("-l", " agent.*")
        seen.keys("Enter")
        seen.wait_for("agent.session_create", "agent.prompt", "cli")
        seen.line("/sessions")
        seen.wait_for("1  hello  this one")
        seen.line("/new")
        seen.wait_for("A new session.")
        seen.line("/status")
        seen.wait_for("session  new")
        seen.line("/resume 1")
        seen.wait_for("Session: hello")
        seen.line("/model demo/nonsense")
        seen.wait_for("There is no model demo/nonsense.")
        seen.line("/model")
        seen.wait_for("demo/smollm2-135m  this one")
        seen.line("/tools")
        seen.wait_for("No tool was called yet.")
        seen.line("/h")
        seen.wait_for("Alt-Enter", "/model [provider/model]")
        seen.line("/quit")
        seen.wait_for("ended with 0")


def test_a_long_answer_loses_nothing_of_the_scrollback(desk: Desk) -> None:
    with desk.chat() as seen:
        seen.wait_for(READY)
        seen.line("before")
        seen.wait_for("You said: before", READY)
        seen.line("code 90")
        seen.wait_for("That was it.", READY)
        shown = seen.screen(scrollback=True)
        numbers = re.findall(r"^ value_(\d+) = \1$", shown, re.MULTILINE)
        assert numbers == [str(number) for number in range(90)]
        assert shown.count("You said: before") == 1
        assert shown.count("This is the demo model") == 1


def test_a_resized_terminal_stays_right(desk: Desk) -> None:
    with desk.chat() as seen:
        seen.wait_for(READY)
        seen.line("slow 60")
        seen.wait_for("word10")
        seen.resize(50, 15)
        seen.wait_for("word30")
        seen.resize(100, 40)
        shown = seen.wait_for("word59", READY)
        assert shown.count("word59") == 1


def test_several_lines(desk: Desk) -> None:
    with desk.chat() as seen:
        seen.wait_for(READY)
        seen.keys("-l", "one")
        seen.keys("M-Enter")
        seen.keys("-l", "two")
        seen.wait_for("\u203a one\n  two")
        seen.keys("Enter")
        seen.wait_for("You said: one two", READY)


def test_ask_asks_at_the_terminal(desk: Desk) -> None:
    with desk.run("ask", "ask rm x") as seen:
        seen.wait_for("The agent wants to use bash: rm x", "permit?")
        seen.line("n no")
        seen.wait_for("Then not: no", "1,200 in · 34 out", "oiab ask --session", "ended with 0")


def test_ask_is_interrupted_at_a_permission(desk: Desk) -> None:
    with desk.run("ask", "ask rm x") as seen:
        seen.wait_for("permit?")
        seen.keys("C-c")
        seen.wait_for("Aborted.", "ended with 130")


def test_a_provider_key_is_asked_for_unseen(desk: Desk) -> None:
    with desk.run("provider", "add", "anthropic", "--model", "m1") as seen:
        seen.wait_for("Key:")
        seen.line("sk-secret")
        shown = seen.wait_for("Added anthropic with m1.", "ended with 0")
        assert "sk-secret" not in shown
