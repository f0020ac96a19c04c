"""Page sizes and page tokens."""

from datetime import UTC, datetime
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.kit.errors import PageTokenInvalid
from services.kit.pages import page_cursor, page_size, page_token

CURSORS = st.dictionaries(st.text(min_size=1, max_size=8), st.one_of(st.integers(), st.text(max_size=40)), max_size=4)


@given(CURSORS, st.text(max_size=20))
def test_a_token_gives_its_cursor_back(values: dict[str, str | int], action: str) -> None:
    token = page_token(values, list="records", action=action)
    cursor = page_cursor(token, list="records", action=action)
    assert cursor
    assert {name: cursor.text(name) for name in values} == {name: str(value) for name, value in values.items()}


def test_values_are_what_they_were() -> None:
    now, ident = datetime.now(UTC), uuid4()
    cursor = page_cursor(page_token({"time": now.isoformat(), "id": str(ident), "place": 7}))
    assert cursor
    assert (cursor.time("time"), cursor.id("id"), cursor.number("place")) == (now, ident, 7)


@pytest.mark.parametrize("value", ["x", -1, 2**70, "2026-01-01T00:00:00"])
def test_a_made_up_cursor_is_refused(value: str | int) -> None:
    cursor = page_cursor(page_token({"value": value}))
    assert cursor
    for read in (cursor.number, cursor.id, cursor.time):
        with pytest.raises(PageTokenInvalid):
            read("value")
        with pytest.raises(PageTokenInvalid):
            read("nothing")


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
