"""Holds an agent's session under the ceiling of the turn that is about to run in it.

Two ways of opencode are needed. Switches that come with a message replace all rules of the session, so that what was
denied before is gone with the next turn; but they only know `deny` for all that a tool does, or `allow`, which would
take away the questions of the bundle. So where only some tools are allowed, rules are added to the session instead,
which say of each what the bundle says.
"""

from collections.abc import Mapping

from services.sandbox.agent_events import Rule
from services.sandbox.ceiling import ALL, Ceiling
from services.sandbox.live import Live
from services.sandbox.opencode import Opencode, OpencodeError
from services.sandbox.sandbox import SandboxStartFailed


async def impose(live: Live, session: str, agent_name: str, ceiling: Ceiling) -> Mapping[str, bool]:
    """Hold a session under a ceiling, and tell which switches every message of the turn has to bring along.

    Args:
        live: The sandbox.
        session: The agent's name of the session.
        agent_name: The agent that the turn speaks to.
        ceiling: What it may use at most.

    Raises:
        SandboxStartFailed: The agent does not answer.
    """
    if (held := live.ceilings.get(session)) and held[:2] == (ceiling, agent_name):
        return held[2]
    try:
        switches = await _impose(live.agent, session, agent_name, ceiling)
    except OpencodeError as error:
        raise SandboxStartFailed("the agent does not answer", sandboxId=live.sandbox.id) from error
    live.ceilings[session] = ceiling, agent_name, switches
    return switches


async def _impose(agent: Opencode, session: str, agent_name: str, ceiling: Ceiling) -> Mapping[str, bool]:
    before = (await agent.session(session)).permission or []
    if ceiling.lists_denied:
        switches = ceiling.switches(before)
        if before != [Rule(permission=name, pattern=ALL, action="deny") for name in switches]:
            await _forget_children(agent, session)
        return switches
    wanted = ceiling.rules(await agent.agent_rules(agent_name))
    if before[-len(wanted) :] != wanted:
        await _forget_children(agent, session)
        await agent.add_rules(session, wanted)
    return {}


async def _forget_children(agent: Opencode, session: str) -> None:
    """Delete the sessions of sub-agents: they keep the rules with which they began, and could be taken up again."""
    for child in await agent.children(session):
        await agent.delete_session(child.id)
