"""Which tools a ceiling leaves, and how opencode is told."""

import pytest
from orginabox.sandbox.v1 import sandbox_service_pb2
from orginabox.turn.v1 import tool_ceiling_pb2

from services.kit.ids import new_id
from services.sandbox.agent_events import Rule
from services.sandbox.ceiling import EVERYTHING, NOTHING, Ceiling
from services.sandbox.mapping import turn_from_proto

OF_AGENT = [
    Rule(permission="*", pattern="*", action="allow"),
    Rule(permission="bash", pattern="*", action="ask"),
    Rule(permission="bash", pattern="ls *", action="allow"),
    Rule(permission="webfetch", pattern="*", action="deny"),
    Rule(permission="external_directory", pattern="*", action="deny"),
]


def ceiling(allowed: str, denied: str = "") -> Ceiling:
    return Ceiling(frozenset(allowed.split()), frozenset(denied.split()))


@pytest.mark.parametrize(
    ("limits", "tool", "may"),
    [
        (EVERYTHING, "bash", True),
        (Ceiling(), "bash", False),
        (ceiling("*", "bash"), "bash", False),
        (ceiling("*", "bash"), "read", True),
        (ceiling("bash", "bash"), "bash", False),
        (ceiling("* bash", "*"), "bash", False),
        (ceiling("bash"), "bash", True),
        (ceiling("bash"), "read", False),
        (ceiling("ba*"), "bash", False),
        (ceiling("*", "b*h"), "bash", True),
        (ceiling("*", "write"), "edit", False),
        (ceiling("edit"), "edit", False),
        (ceiling("edit write apply_patch"), "write", True),
    ],
)
def test_what_may_be_used(limits: Ceiling, tool: str, may: bool) -> None:
    assert limits.permits(tool) is may


def test_what_is_denied_is_switched_off_and_an_empty_list_takes_older_switches_away() -> None:
    old = [Rule(permission="bash", pattern="*", action="deny")]
    assert EVERYTHING.switches([]) == {}
    assert EVERYTHING.switches(old) == {NOTHING: False}
    assert ceiling("*", "bash no-tool b*").switches(old) == {"bash": False, "no-tool": False}
    assert ceiling("*", "write").switches([]) == {"edit": False, "write": False}
    assert ceiling("*").lists_denied
    assert not ceiling("*", "*").lists_denied
    assert not ceiling("bash").lists_denied


def test_what_is_allowed_keeps_the_words_of_the_bundle_and_nothing_else_is() -> None:
    told = [(rule.permission, rule.pattern, rule.action) for rule in ceiling("bash webfetch r*").rules(OF_AGENT)]
    assert told[0] == ("*", "*", "deny")
    assert [rule for rule in told if rule[0] == "bash"] == [
        ("bash", "*", "allow"),
        ("bash", "*", "ask"),
        ("bash", "ls *", "allow"),
    ]
    assert [rule for rule in told if rule[0] == "external_directory"][-1][2] == "deny"
    assert [rule for rule in told if rule[0] == "webfetch"][-1][2] == "deny"
    assert {rule[0] for rule in told} == {"*", "bash", "webfetch", "external_directory", "doom_loop"}
    assert [rule.action for rule in Ceiling().rules(OF_AGENT)] == ["deny"]
    assert [rule.action for rule in ceiling("bash").rules([])] == ["deny"]


def test_a_ceiling_comes_over_the_wire() -> None:
    request = sandbox_service_pb2.RunTurnRequest(
        tenant_id=str(new_id()),
        sandbox_id=str(new_id()),
        session_id=str(new_id()),
        turn_id=str(new_id()),
        tools=tool_ceiling_pb2.ToolCeiling(allowed=["*"], denied=["bash"]),
    )
    assert turn_from_proto(request).ceiling == ceiling("*", "bash")
    request.ClearField("tools")
    assert turn_from_proto(request).ceiling == Ceiling()
