"""Which tools an agent may use at most, and how opencode is told so. No I/O.

opencode offers a model no tool whose last fitting rule denies it, and does not run one that it did not offer. Its rules
are by permission, and some tools share one: what edits files is allowed as a whole or not at all.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from services.sandbox.agent_events import Rule

ALL = "*"
EDIT = "edit"
EDITORS = frozenset({EDIT, "write", "apply_patch"})
"""The tools that share the permission to edit."""
NO_TOOLS = ("external_directory", "doom_loop")
"""Permissions that are of no tool of their own: another rule tells which tool may ask for them."""
NOTHING = "no-such-tool"
"""Switching it off changes nothing but that older switches are gone."""
_PATTERN = frozenset("*?")


@dataclass(frozen=True)
class Ceiling:
    """The tools that an agent may use at most, by name. `*` means all, and deny wins.

    Attributes:
        allowed: The tools that are allowed.
        denied: Those that are not, whatever is allowed.
    """

    allowed: frozenset[str] = frozenset()
    denied: frozenset[str] = frozenset()

    def permits(self, tool: str) -> bool:
        """Whether an agent may use a tool, or what needs a permission of that name."""
        return all(map(self._names, EDITORS if tool in EDITORS else {tool}))

    @cached_property
    def lists_denied(self) -> bool:
        """Whether all tools may be used but some. Otherwise none may but some."""
        return ALL in self.allowed and ALL not in self.denied

    def switches(self, before: Sequence[Rule]) -> Mapping[str, bool]:
        """Which tools are switched off with each message, where those that are denied are listed.

        Args:
            before: The rules of the session. They are replaced by the switches, if there are any.
        """
        off = {name for name in self.denied if not _PATTERN & set(name)}
        if off & EDITORS:
            off.add(EDIT)
        return dict.fromkeys(sorted(off) or [NOTHING] * bool(before), False)

    def rules(self, of_agent: Sequence[Rule]) -> list[Rule]:
        """The rules that leave an agent no more than what is listed as allowed, and that as its bundle says."""
        listed = sorted(name for name in self.allowed if not _PATTERN & set(name) and self.permits(name))
        found = [Rule(permission=ALL, pattern=ALL, action="deny")]
        for name in [*listed, *NO_TOOLS] if listed else []:
            found += _narrowed(of_agent, name)
        return found

    def _names(self, tool: str) -> bool:
        return tool not in self.denied and ALL not in self.denied and (ALL in self.allowed or tool in self.allowed)


def _narrowed(rules: Sequence[Rule], permission: str) -> Iterator[Rule]:
    """What rules say of one permission, in words that speak of it alone."""
    for rule in rules:
        if rule.permission in {ALL, permission}:
            yield Rule(permission=permission, pattern=rule.pattern, action=rule.action)


EVERYTHING = Ceiling(frozenset({ALL}))
"""No ceiling at all."""
