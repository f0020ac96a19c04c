"""Permissions that a turn waits for: how they are asked, and how an answer is read."""

from dataclasses import dataclass

from orginabox_sdk.orginabox.turn.v1 import PermissionAsked, PermissionReply

from gateways.chat.words import clean

HINT = "y once · a always · n refuse and stop · n <reason> refuse and go on"
NOBODY = "Nobody was there to permit it. Go on without it, or say what you would have done."

_REPLIES = {
    "y": PermissionReply.ONCE,
    "yes": PermissionReply.ONCE,
    "a": PermissionReply.ALWAYS,
    "always": PermissionReply.ALWAYS,
    "n": PermissionReply.REJECT,
    "no": PermissionReply.REJECT,
}


@dataclass(frozen=True)
class Answer:
    """An answer to a permission, and with a refusal what to tell the agent."""

    reply: PermissionReply
    message: str = ""


ONCE = Answer(PermissionReply.ONCE)
REFUSED = Answer(PermissionReply.REJECT, NOBODY)


def read_answer(text: str) -> Answer | None:
    """The answer that somebody typed, or None when it is none."""
    word, _, rest = text.strip().partition(" ")
    reply = _REPLIES.get(word.lower())
    if reply is None or (rest and reply is not PermissionReply.REJECT):
        return None
    return Answer(reply, rest.strip())


def question(asked: PermissionAsked) -> str:
    """What is asked, in a line."""
    what = clean(asked.title or ", ".join(asked.patterns))
    return (
        f"The agent wants to use {asked.permission}: {what}" if what else f"The agent wants to use {asked.permission}"
    )


def always(asked: PermissionAsked) -> str:
    """What the answer `always` would permit, in a line. Empty when it is not known."""
    return f"always permits: {clean(', '.join(asked.always_patterns))}" if asked.always_patterns else ""
