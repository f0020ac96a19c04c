"""Markdown that grows: what is finished stays as it is, whatever follows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateways.chat.markdown import blocks, split_finished

TEXT = """# Title

First paragraph
in two lines.

1. one

2. two
   more

```python
a = 1

b = 2
```
| a | b |
|---|---|
| 1 | 2 |

Last."""


def test_blocks_are_the_text() -> None:
    found = blocks(TEXT)
    assert "".join(found) == TEXT
    assert [block.split("\n")[0] for block in found] == [
        "# Title",
        "First paragraph",
        "1. one",
        "```python",
        "| a | b |",
        "Last.",
    ]


@pytest.mark.parametrize("text", ["", "\n", "\n\n", "one line", "one line\n", "- a\n\n- b", "```\nopen\n\nfence\n"])
def test_one_block_is_never_finished(text: str) -> None:
    assert split_finished(text) == ([], text)


def test_the_last_block_and_the_open_line_may_go_on() -> None:
    assert split_finished("a\n\nb\n\nc") == (["a\n\n"], "b\n\nc")


@given(st.lists(st.integers(1, 12)))
def test_growing_gives_the_same_blocks_as_the_whole(steps: list[int]) -> None:
    settled: list[str] = []
    rest = ""
    place = 0
    for step in [*steps, len(TEXT)]:
        rest += TEXT[place : place + step]
        place += step
        finished, rest = split_finished(rest)
        settled += finished
    assert "".join(settled) + rest == TEXT
    assert [*settled, *blocks(rest)] == blocks(TEXT)
