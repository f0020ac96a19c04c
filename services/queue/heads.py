"""Where the ready jobs begin: a claim starts behind what earlier claims took.

What was claimed stays in the index until a vacuum removes it, and none can while an old transaction looks. A claim from
the very beginning would walk through all of it.
"""

from collections.abc import Collection, Iterable, Mapping

Stretch = tuple[str, int]
"""Kind and lane."""
Position = tuple[int, int]
"""Priority and virtual time."""
Place = tuple[str, int, int]
"""Kind, priority and virtual time of a job that has become ready."""

FIRST: Position = (-(2**15), -(2**63))
LAST: Position = (2**15 - 1, 2**63 - 1)


class Heads:
    """Positions before which no job is ready, as far as this process has heard.

    A job that another process made ready before such a position is found when everything is forgotten, every few
    seconds and with every hint.
    """

    def __init__(self) -> None:
        self._low: dict[Stretch, Position] = {}
        self._came: dict[str, Position] = {}
        self._forgotten = False

    def begin(self, stretches: Collection[Stretch]) -> list[Position]:
        """Where a claim of these stretches begins. There is one claim at a time."""
        self._came.clear()
        self._forgotten = False
        return [self._low.get(stretch, FIRST) for stretch in stretches]

    def end(self, reached: Mapping[Stretch, Position]) -> None:
        """The claim took all that was ready up to these positions."""
        if not self._forgotten:
            for stretch, position in reached.items():
                self._low[stretch] = min(position, self._came.get(stretch[0], LAST))

    def came(self, places: Iterable[Place]) -> None:
        """These jobs have become ready."""
        earliest: dict[str, Position] = {}
        for kind, priority, vt in places:
            earliest[kind] = min((priority, vt), earliest.get(kind, LAST))
        for kind, position in earliest.items():
            self._came[kind] = min(position, self._came.get(kind, LAST))
        for stretch, low in self._low.items():
            if (first := earliest.get(stretch[0])) and first < low:
                self._low[stretch] = first

    def forget(self) -> None:
        """Jobs have become ready, and nobody says which."""
        self._low.clear()
        self._forgotten = True
