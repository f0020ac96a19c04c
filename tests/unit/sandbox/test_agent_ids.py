"""Ids in opencode's form."""

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from services.kit.ids import new_id
from services.sandbox.agent_ids import message_id, part_id, said_message_id


def test_the_same_turn_has_the_same_message() -> None:
    turn = new_id()
    assert message_id(turn) == message_id(UUID(str(turn)))
    assert message_id(turn) != message_id(new_id())


def test_the_form_is_opencodes() -> None:
    name = message_id(UUID("01a20c3a-6ded-7246-a506-96160be517ca"))
    assert name.startswith("msg_")
    assert len(name) == len("msg_20c2c3ca1001AhqOTlgS7uem4P")
    assert int(name[4:16], 16) == (0x01A20C3A6DED * 0x1000 + 1) % 2**48


def test_what_is_said_into_a_turn_stands_behind_all_that_was_there() -> None:
    turn, old = new_id(), UUID("01a20c3a-6ded-7246-a506-96160be517ca")
    first, second = said_message_id(old), said_message_id(old)
    assert message_id(turn) < first < second or int(message_id(turn)[4:16], 16) > 2**47
    assert first[-14:] == second[-14:] == message_id(old)[-14:]
    assert part_id(first) == "prt_" + first[4:]


@given(st.lists(st.integers(2**40, 2**41), min_size=2, max_size=2, unique=True).map(sorted))
def test_later_turns_have_later_messages(times: list[int]) -> None:
    if times[0] >> 36 == times[1] >> 36:  # the stamp of opencode's ids wraps every two years
        first, second = (message_id(UUID(int=(time << 80) | (7 << 76) | (2 << 62))) for time in times)
        assert first < second
