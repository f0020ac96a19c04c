"""The inbox: what is said while a turn runs is kept in order, can be reworded and removed, and is never lost."""

import asyncio
from functools import partial
from typing import Any

import grpc
import pytest
from orginabox.api.v1 import session_pb2, turn_pb2, turn_service_pb2
from orginabox.api.v1 import session_service_pb2 as pb
from orginabox.turn.v1 import turn_event_pb2

from services.kit.ids import new_id
from tests.contract.api.conftest import Rig
from tests.contract.api.peers import Away, RunLost, TurnEnded
from tests.contract.api.test_sessions import make_session, refused
from tests.contract.api.test_turn_log import append, completed, delta, open_turn, read

QUEUE, STEER, INTERRUPT = (
    session_pb2.BUSY_POLICY_QUEUE,
    session_pb2.BUSY_POLICY_STEER,
    session_pb2.BUSY_POLICY_INTERRUPT,
)


async def say(api: Rig, session_id: str, text: str, **fields: Any) -> pb.PromptResponse:
    request = pb.PromptRequest(session_id=session_id, text=text, **fields)
    return await api.sessions.Prompt(request, metadata=api.key)


async def inbox(api: Rig, session_id: str) -> list[turn_pb2.Turn]:
    page = await api.sessions.ListInbox(pb.ListInboxRequest(session_id=session_id), metadata=api.key)
    return list(page.turns)


async def texts(api: Rig, session_id: str) -> list[str]:
    return [turn.text for turn in await inbox(api, session_id)]


async def remove(api: Rig, turn_id: str) -> None:
    await api.turns.AbortTurn(turn_service_pb2.AbortTurnRequest(turn_id=turn_id), metadata=api.key)


async def reword(api: Rig, turn_id: str, text: str) -> turn_service_pb2.UpdateTurnResponse:
    return await api.turns.UpdateTurn(turn_service_pb2.UpdateTurnRequest(turn_id=turn_id, text=text), metadata=api.key)


async def tickets(api: Rig, count: int) -> list[str]:
    """What the jobs say, in the order in which the queue has them."""
    await api.until(lambda: len(api.peers.jobs) == count)
    return [job.payload.decode() for job in api.peers.jobs]


async def state(api: Rig, turn_id: str) -> turn_pb2.TurnState.ValueType:
    answer = await api.turns.GetTurn(turn_service_pb2.GetTurnRequest(turn_id=turn_id), metadata=api.key)
    return answer.turn.state


async def running_session(api: Rig) -> tuple[str, str]:
    """A session with a turn that runs."""
    session_id = await make_session(api)
    turn_id = (await say(api, session_id, "first")).turn_id
    await open_turn(api, turn_id)
    return session_id, turn_id


async def test_what_waits_is_listed_in_order_by_page(api: Rig) -> None:
    session_id, turn_id = await running_session(api)
    for number in range(4):
        assert (await say(api, session_id, str(number))).position == number + 1
    seen, token = [], ""
    while True:
        request = pb.ListInboxRequest(session_id=session_id, page_size=2, page_token=token)
        page = await api.sessions.ListInbox(request, metadata=api.key)
        assert len(page.turns) <= 2
        seen += [turn.text for turn in page.turns]
        if not (token := page.next_page_token):
            break
    assert seen == ["first", "0", "1", "2", "3"]
    await append(api, turn_id, completed(1))
    assert await texts(api, session_id) == ["0", "1", "2", "3"]
    call = api.sessions.ListInbox(
        pb.ListInboxRequest(session_id="00000000-0000-7000-8000-00000000dead"), metadata=api.key
    )
    assert await refused(call) == (grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND")


async def test_a_waiting_turn_is_reworded_in_its_place(api: Rig) -> None:
    session_id, _ = await running_session(api)
    request_id = str(new_id())
    second = await say(api, session_id, "secnd", request_id=request_id)
    await say(api, session_id, "third")
    assert (await reword(api, second.turn_id, "second")).turn.text == "second"
    assert await texts(api, session_id) == ["first", "second", "third"]
    assert (await open_turn(api, second.turn_id)).text == "second"
    await api.until(lambda: "agent.prompt_update" in api.peers.actions())
    # A repeat of the prompt, which knows nothing of the change, is a repeat all the same.
    assert (await say(api, session_id, "secnd", request_id=request_id)).turn_id == second.turn_id


async def test_what_runs_or_has_ended_is_not_reworded(api: Rig) -> None:
    _, turn_id = await running_session(api)
    assert await refused(reword(api, turn_id, "else")) == (grpc.StatusCode.FAILED_PRECONDITION, "TURN_STARTED")
    await append(api, turn_id, completed(1))
    assert await refused(reword(api, turn_id, "else")) == (grpc.StatusCode.FAILED_PRECONDITION, "TURN_ENDED")
    unknown = reword(api, "00000000-0000-7000-8000-00000000dead", "else")
    assert await refused(unknown) == (grpc.StatusCode.NOT_FOUND, "TURN_NOT_FOUND")


async def test_a_turn_that_is_reworded_while_it_starts_says_the_one_or_refuses_the_other(api: Rig) -> None:
    session_id = await make_session(api)
    for number in range(20):
        turn_id = (await say(api, session_id, "old")).turn_id
        opening, rewording = await asyncio.gather(
            open_turn(api, turn_id), reword(api, turn_id, "new"), return_exceptions=True
        )
        assert not isinstance(opening, BaseException), number
        if isinstance(rewording, BaseException):
            assert isinstance(rewording, grpc.aio.AioRpcError)
            assert opening.text == "old"
        else:
            assert opening.text == "new"
        await append(api, turn_id, completed(1))


async def test_a_removed_turn_does_not_run_and_its_job_finds_it_ended(api: Rig) -> None:
    session_id, _ = await running_session(api)
    second = (await say(api, session_id, "second")).turn_id
    await say(api, session_id, "third")
    await remove(api, second)
    assert await texts(api, session_id) == ["first", "third"]
    assert (await open_turn(api, second)).ended


async def test_a_prompt_that_interrupts_aborts_what_runs_and_is_before_all_that_wait(api: Rig) -> None:
    session_id, first = await running_session(api)
    second, third = [(await say(api, session_id, text)).turn_id for text in ("second", "third")]
    taken = await say(api, session_id, "now", busy_policy=INTERRUPT)
    assert taken.position == 1
    assert api.peers.aborted[:1] == [first]
    assert await texts(api, session_id) == ["first", "now", "second", "third"]
    await append(api, first, turn_event_pb2.TurnEvent(sequence=1, aborted=turn_event_pb2.TurnAborted()))
    # The jobs come in the order in which they were enqueued; each stands for a place, not for a turn.
    places = await tickets(api, 4)
    assert places == [first, second, third, taken.turn_id]
    ran = []
    for place in places[1:]:
        opened = await open_turn(api, place, token=place)
        assert (await open_turn(api, place, attempt=2, token=f"{place}2")).turn_id == opened.turn_id
        ran.append(opened.text)
        await append(api, opened.turn_id, completed(1), token=f"{place}2")
    assert ran == ["now", "second", "third"]
    assert {"agent.abort", "agent.prompt"} <= set(api.peers.actions())


async def test_the_later_of_two_interruptions_is_first(api: Rig) -> None:
    session_id, _ = await running_session(api)
    await say(api, session_id, "waits")
    for text in ("now", "no, now"):
        await say(api, session_id, text, busy_policy=INTERRUPT)
    assert await texts(api, session_id) == ["first", "no, now", "now", "waits"]


async def test_interruptions_while_jobs_start_run_each_turn_once(api: Rig) -> None:
    session_id = await make_session(api)
    for number in range(5):
        await say(api, session_id, f"q{number}")

    async def interrupt() -> None:
        for number in range(10):
            await say(api, session_id, f"i{number}", busy_policy=INTERRUPT)

    ran: list[str] = []

    def has_job(number: int) -> bool:
        return len(api.peers.jobs) > number

    async def work() -> None:
        for number in range(15):
            await api.until(partial(has_job, number))
            opened = await open_turn(api, api.peers.jobs[number].payload.decode())
            assert not opened.ended
            ran.append(opened.text)
            await append(api, opened.turn_id, completed(1))

    await asyncio.gather(interrupt(), work())
    assert sorted(ran) == sorted([f"q{number}" for number in range(5)] + [f"i{number}" for number in range(10)])
    queued = [text for text in ran if text.startswith("q")]
    assert queued == sorted(queued)
    assert await inbox(api, session_id) == []


async def test_a_repeated_interruption_interrupts_once(api: Rig) -> None:
    session_id, first = await running_session(api)
    request_id = str(new_id())
    taken = await say(api, session_id, "now", busy_policy=INTERRUPT, request_id=request_id)
    await append(api, first, completed(1))
    await open_turn(api, first)
    again = await say(api, session_id, "now", busy_policy=INTERRUPT, request_id=request_id)
    assert again.turn_id == taken.turn_id
    assert await texts(api, session_id) == ["now"]


async def test_a_steering_prompt_reaches_the_turn_that_runs(api: Rig) -> None:
    session_id, first = await running_session(api)
    request_id = str(new_id())
    taken = await say(api, session_id, "to the left", busy_policy=STEER, request_id=request_id)
    assert (taken.turn_id, taken.position) == (first, 0)
    await api.until(lambda: list(api.peers.steered.values()) == ["to the left"])
    assert (await say(api, session_id, "to the left", busy_policy=STEER, request_id=request_id)).turn_id == first
    other = say(api, session_id, "to the right", busy_policy=STEER, request_id=request_id)
    assert await refused(other) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")
    await asyncio.sleep(0.3)
    assert api.peers.steer_calls == 1
    await append(api, first, completed(1))
    assert await inbox(api, session_id) == []


async def test_what_was_steered_stands_in_the_history_where_it_was_heard(api: Rig) -> None:
    session_id, first = await running_session(api)
    await append(
        api,
        first,
        delta(1, "Right."),
        turn_event_pb2.TurnEvent(sequence=2, user_steered=turn_event_pb2.UserSteered(text="Left!")),
        turn_event_pb2.TurnEvent(sequence=3, text_delta=turn_event_pb2.TextDelta(part_id="q", text="Left.")),
        completed(4),
    )
    await say(api, session_id, "second")
    request = pb.ListMessagesRequest(session_id=session_id, page_size=4)
    page = await api.sessions.ListMessages(request, metadata=api.key)
    user, agent = session_pb2.ROLE_USER, session_pb2.ROLE_ASSISTANT
    assert [(message.role, message.parts[0].text) for message in page.messages] == [
        (user, "first"),
        (agent, "Right."),
        (user, "Left!"),
        (agent, "Left."),
    ]
    assert len({message.message_id for message in page.messages}) == 4
    request.page_token = page.next_page_token
    rest = await api.sessions.ListMessages(request, metadata=api.key)
    assert [message.parts[0].text for message in rest.messages] == ["second"]
    assert not rest.next_page_token


async def test_a_steering_prompt_is_a_turn_of_its_own_when_none_runs(api: Rig) -> None:
    session_id = await make_session(api)
    taken = await say(api, session_id, "hello", busy_policy=STEER)
    assert (taken.turn.text, taken.position) == ("hello", 0)
    # The one that waits does not run yet.
    assert (await say(api, session_id, "and", busy_policy=STEER)).position == 1


async def test_what_was_steered_outlives_a_sandbox_that_is_away(api: Rig) -> None:
    session_id, first = await running_session(api)
    api.peers.refuse_steer = Away("cut")
    for text in ("one", "two", "three"):
        await say(api, session_id, text, busy_policy=STEER)
    await api.until(lambda: api.peers.steer_calls > 2)
    assert not api.peers.steered
    api.peers.refuse_steer = RunLost("the run is about to begin")
    calls = api.peers.steer_calls
    await api.until(lambda: api.peers.steer_calls > calls)
    api.peers.refuse_steer = None
    await api.until(lambda: list(api.peers.steered.values()) == ["one", "two", "three"])
    assert await texts(api, session_id) == ["first"]
    assert await state(api, first) == turn_pb2.TURN_STATE_RUNNING


async def test_what_was_steered_too_late_is_a_turn_of_its_own_and_the_next(api: Rig) -> None:
    session_id, first = await running_session(api)
    await say(api, session_id, "waits")
    api.peers.refuse_steer = TurnEnded("the run has ended")
    request_id = str(new_id())
    await say(api, session_id, "one", busy_policy=STEER, request_id=request_id)
    await say(api, session_id, "two", busy_policy=STEER)
    await append(api, first, completed(1))
    for _ in range(100):
        if len(waiting := await texts(api, session_id)) == 3:
            break
        await asyncio.sleep(0.05)
    # Before those that waited, in the order in which they were said.
    assert waiting == ["one", "two", "waits"]
    turns = await inbox(api, session_id)
    repeated = await say(api, session_id, "one", busy_policy=STEER, request_id=request_id)
    assert repeated.turn.text == "one"
    assert repeated.turn_id in {turn.turn_id for turn in turns}
    assert (await tickets(api, 4))[0] == first


async def test_what_was_steered_is_not_said_twice_when_only_the_answer_was_lost(api: Rig) -> None:
    session_id, first = await running_session(api)
    api.peers.lose_answers = True
    await say(api, session_id, "once", busy_policy=STEER)
    await api.until(lambda: bool(api.peers.steered))
    await append(api, first, completed(1))
    api.peers.lose_answers = False
    calls = api.peers.steer_calls
    await api.until(lambda: api.peers.steer_calls > calls)
    await asyncio.sleep(0.3)
    assert await inbox(api, session_id) == []


async def test_the_session_says_what_prompts_do_that_do_not_say_themselves(api: Rig) -> None:
    session_id, first = await running_session(api)
    got = await api.sessions.GetSession(pb.GetSessionRequest(session_id=session_id), metadata=api.key)
    assert got.session.busy_policy == QUEUE
    changed = await api.sessions.UpdateSession(
        pb.UpdateSessionRequest(session_id=session_id, busy_policy=STEER), metadata=api.key
    )
    assert (changed.session.busy_policy, changed.session.title) == (STEER, "first")
    assert (await say(api, session_id, "left")).turn_id == first
    assert (await say(api, session_id, "later", busy_policy=QUEUE)).position == 1
    call = api.sessions.UpdateSession(pb.UpdateSessionRequest(session_id=session_id), metadata=api.key)
    assert await refused(call) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT")


async def test_a_turn_that_should_stop_is_told_until_it_does(api: Rig) -> None:
    session_id, first = await running_session(api)
    await say(api, session_id, "now", busy_policy=INTERRUPT)
    await api.until(lambda: api.peers.aborted.count(first) > 1)
    # It is on its way out: what is said into it now would not be heard.
    assert (await say(api, session_id, "left", busy_policy=STEER)).turn_id != first
    await append(api, first, turn_event_pb2.TurnEvent(sequence=1, aborted=turn_event_pb2.TurnAborted()))
    assert [event.WhichOneof("event") for event in await read(api, first)] == ["aborted"]


async def test_the_inbox_has_an_end_for_what_is_steered_too(api: Rig) -> None:
    session_id, _ = await running_session(api)
    api.peers.refuse_steer = Away("cut")
    for number in range(100):
        await say(api, session_id, str(number), busy_policy=STEER)
    call = say(api, session_id, "one more", busy_policy=STEER)
    assert await refused(call) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "INBOX_FULL")


@pytest.mark.parametrize("text", ["", "x" * 100_001])
async def test_a_bad_text_is_refused(api: Rig, text: str) -> None:
    _, turn_id = await running_session(api)
    code, _ = await refused(reword(api, turn_id, text))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
