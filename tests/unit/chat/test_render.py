"""Items as the terminal shows them."""

import re
from datetime import UTC, datetime, timedelta

from orginabox_sdk.orginabox.turn.v1 import PermissionAsked, PermissionReply, TodoItem

from gateways.chat.render import Renderer, unfolded, you
from gateways.chat.view import Asked, Ended, Note, Outcome, Spent, Text, Thought, Todos, Tool, ToolState

TOOL = Tool(True, "c", "bash", "ls -la", ToolState.DONE, "a\nb\n", seconds=0.4)


def shown(*items: object, numbers: tuple[int, ...] = (), width: int = 80) -> str:
    """The items without colours."""
    rendered = Renderer(None).settled(items, numbers, width)  # type: ignore[arg-type]
    return re.sub(r"\x1b\[[0-9;]*m", "", rendered)


def test_markdown_has_no_blank_lines_around_its_blocks() -> None:
    text = "# Title\n\nWords\n\n```python\nx = 1\n```\n\n| a |\n|---|\n| 1 |\n"
    assert shown(Text(text=text)).splitlines() == ["", "Title", "", "Words", "", " x = 1", "", " a", " ─", " 1"]


def test_lines_have_no_blanks_at_their_ends_and_fit() -> None:
    lines = shown(Text(text="word " * 60 + "\n\n- " + "item " * 40), width=40).splitlines()
    assert all(line == line.rstrip() and len(line) <= 40 for line in lines)


def test_a_tool_is_one_line() -> None:
    assert shown(TOOL, numbers=(3,)) == "\n✓ bash ls -la (0.4s)  /expand 3\n"
    failed = Tool(True, "c", "edit", "a.txt", ToolState.FAILED, error="no such file")
    assert shown(TOOL, failed, numbers=(1, 2)).splitlines() == [
        "",
        "✓ bash ls -la (0.4s)  /expand 1",
        "✗ edit a.txt  /expand 2",
        "  no such file",
    ]


def test_a_running_tool_shows_its_last_lines() -> None:
    since = datetime.now(UTC) - timedelta(seconds=75)
    running = Tool(call_id="c", tool="bash", title="make", output="1\n2\n3\n4\n", since=since)
    lines = Renderer(None).live([running], tick=0, width=80).splitlines()
    assert lines[1].startswith("⠋ bash make (1m 1")
    assert lines[2:] == ["  2", "  3", "  4"]
    assert Renderer(None).live([running], tick=1, width=80).splitlines()[1].startswith("⠙")


def test_a_permission_is_asked_with_its_diff() -> None:
    asked = PermissionAsked(
        permission_id="1", permission="edit", title="a.txt", diff="-old\n+new\n", always_patterns=["*.txt"]
    )
    lines = shown(Asked(asked=asked)).splitlines()
    assert lines[1] == "? The agent wants to use edit: a.txt"
    assert lines[2:4] == ["-old", "+new"]
    assert lines[4] == "  always permits: *.txt"
    replied = Asked(True, asked, PermissionReply.ALWAYS)
    assert shown(replied).strip() == "✓ permitted for the session: edit a.txt"
    assert shown(Asked(True, asked, PermissionReply(9))).strip() == "UNKNOWN(9): edit a.txt"


def test_a_long_diff_is_cut() -> None:
    asked = PermissionAsked(permission="edit", diff="\n".join(f"+{n}" for n in range(100)))
    assert "… 40 more lines" in shown(Asked(asked=asked))


def test_thoughts_tasks_and_notes() -> None:
    then = datetime(2026, 1, 1, tzinfo=UTC)
    assert shown(Thought(True, "r", "x", then, then + timedelta(seconds=2.1))).strip() == "∴ thought for 2.1s"
    tasks = Todos(True, [TodoItem(content="Read", status="completed"), TodoItem(content="Rest", status="pending")])
    assert shown(tasks).splitlines()[1:] == ["  ✓ Read", "  · Rest"]
    assert shown(Note(True, "[bold]as it is[/]")).strip() == "[bold]as it is[/]"


def test_the_end_says_how_and_what_to_do() -> None:
    spent = Spent(1200, 34, 0, 1500, 3.2)
    assert shown(Ended(True, Outcome.COMPLETED, spent)).strip() == "1,200 in · 34 out · $0.0015 · 3.2s"
    failed = Ended(True, Outcome.FAILED, spent, "RUNTIME_NOT_APPLIED", "no runtime is applied yet")
    assert shown(failed).splitlines()[1] == "No runtime is applied yet. Apply it: oiab runtime apply"
    assert shown(Ended(True, Outcome.ABORTED, spent)).splitlines()[1] == "Aborted."


def test_unfolds() -> None:
    renderer = Renderer(None)
    assert renderer.ansi(unfolded(TOOL), 80).splitlines() == ["✓ bash ls -la (0.4s)", "a", "b"]
    silent = Tool(True, "c", "bash", "true", ToolState.DONE)
    assert renderer.ansi(unfolded(silent), 80).splitlines() == ["✓ bash true", "It printed nothing."]


def test_what_the_user_said_is_taken_as_it_is() -> None:
    assert Renderer(None).ansi(you("[red]a[/]\nb"), 80).splitlines() == ["\u203a [red]a[/]", "  b"]
