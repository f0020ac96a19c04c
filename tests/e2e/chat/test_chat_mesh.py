"""The terminal on the whole mesh: real turns in a real sandbox, and a part of the box that dies in their middle."""

import json
import re
import shutil
import sys
from contextlib import AbstractContextManager

import pytest

from tests.e2e.chat.terminal import Terminal, terminal
from tests.e2e.mesh import Box

READY = "say something"

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is the terminal of these tests")


def chat(box: Box, *arguments: str) -> AbstractContextManager[Terminal]:
    """A chat with the box in a terminal."""
    return terminal((sys.executable, "-m", "gateways.chat", "chat", *arguments), box.env)


def test_a_newcomer_talks_to_the_demo_model(fresh_box: Box) -> None:
    with chat(fresh_box) as seen:
        assert "This is the demo model" in seen.wait_for(READY)
        seen.line("Say hello")
        shown = seen.wait_for(" out · ", READY, seconds=60)
        answer = shown.split("\u203a Say hello\n", 1)[1].split(" out · ", 1)[0].strip().splitlines()
        assert answer[0].strip()


def test_tools_permissions_and_history(mesh: Box) -> None:
    with chat(mesh) as seen:
        seen.wait_for("scripted/scripted", READY)
        seen.line("bash echo sand$((40 + 2))box")
        seen.wait_for("✓ bash", "Done.", READY)
        seen.line("/expand")
        seen.wait_for("sand42box")
        seen.line('[[scenario:write {"path": "terminal.txt"}]]')
        seen.wait_for("The agent wants to use edit", "+hello", "permit?")
        seen.line("y")
        seen.wait_for("✓ permitted once", "✓ write", READY)
        seen.line('[[scenario:write {"path": "other.txt"}]]')
        seen.wait_for("permit?")
        seen.line("n not there")
        seen.wait_for("✗ refused", "not there", READY)
        seen.keys("C-d")
        seen.wait_for("ended with 0")
    with chat(mesh, "--continue") as seen:
        seen.wait_for("✓ write", "✗ write", READY)


def test_every_word_comes_once_though_the_api_is_killed(mesh: Box) -> None:
    with chat(mesh) as seen:
        seen.wait_for(READY)
        seen.line('[[scenario:slow {"deltas": 60, "interval": 0.1}]]')
        seen.wait_for("word5 ")
        mesh.kill("api")
        shown = seen.wait_for("word59", " out · ", READY, seconds=60)
        assert re.findall(r"\bword\d+", shown) == [f"word{number}" for number in range(60)]


def test_an_interrupt_stops_the_agent(mesh: Box) -> None:
    with chat(mesh) as seen:
        seen.wait_for(READY)
        seen.line('[[scenario:slow {"deltas": 600, "interval": 0.1}]]')
        seen.wait_for("word5 ")
        seen.keys("C-c")
        seen.wait_for("Aborted.", READY)
        seen.line("say still here")
        seen.wait_for("still here", " out · ", READY)


def test_the_answer_of_ask_is_the_answer_alone(mesh: Box) -> None:
    done = mesh.oiab("ask", "bash echo hi")
    assert done.stdout == "Calling. \n\nDone.\n"
    events = [json.loads(line) for line in mesh.oiab("ask", "--json", "say hello").stdout.splitlines()]
    assert [int(event["sequence"]) for event in events] == list(range(1, len(events) + 1))
    assert "completed" in events[-1]
