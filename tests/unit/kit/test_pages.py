"""Page sizes and page tokens."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.kit.errors import PageTokenInvalid
from services.kit.pages import page_cursor, page_size, page_token

CURSORS = st.dictionaries(st.text(min_size=1, max_size=8), st.one_of(st.integers(), st.text(max_size=40)), max_size=4)


@given(CURSORS, st.text(max_size=20))
def test_a_token_gives_its_cursor_back(cursor: dict[str, str | int], action: str) -> None:
    token = page_token(cursor, list="records", action=action)
    assert page_cursor(token, list="records", action=action) == cursor


def test_a_token_fits_its_own_list_and_filter_only() -> None:
    token = page_token({"id": 7}, list="records", action="agent.*")
    for other in ({"list": "records", "action": ""}, {"list": "jobs", "action": "agent.*"}, {}):
        with pytest.raises(PageTokenInvalid):
            page_cursor(token, **other)


@given(st.text(min_size=1))
def test_nonsense_is_refused(token: str) -> None:
    with pytest.raises(PageTokenInvalid):
        page_cursor(token, list="records")


@pytest.mark.parametrize(("asked", "given_"), [(0, 50), (1, 1), (500, 500), (100_000, 500)])
def test_page_sizes_have_a_default_and_a_limit(asked: int, given_: int) -> None:
    assert page_size(asked) == given_


def test_no_token_is_the_first_page() -> None:
    assert page_cursor("", list="records") is None
