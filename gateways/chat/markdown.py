"""Markdown that grows: its blocks, and which of them are finished."""

from itertools import pairwise

from markdown_it import MarkdownIt

_PARSER = MarkdownIt("commonmark").enable(["table", "strikethrough"])


def blocks(text: str) -> list[str]:
    """The top-level blocks of a text: paragraphs, lists, tables, code. Together they are the text again."""
    starts = [token.map[0] for token in _PARSER.parse(text) if token.level == 0 and token.map and token.nesting >= 0]
    lines = text.splitlines(keepends=True)
    bounds = [0, *starts[1:], len(lines)]
    return ["".join(lines[begin:end]) for begin, end in pairwise(bounds)]


def split_finished(text: str) -> tuple[list[str], str]:
    """The blocks that no further text can change, and the rest.

    The last block may go on, and so may a line that has no end yet; all before it is finished.
    """
    whole = text[: text.rfind("\n") + 1]
    finished = blocks(whole)[:-1]
    return finished, text[sum(map(len, finished)) :]
