"""The refusals as a reader sees them: each reason with its code, its HTTP status, and who answers with it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from docs.generator.contract import Contract, EnumValue, Method

PREFIX = "ERROR_REASON_"

# Canonical codes with the HTTP status that the edge makes of each.
HTTP_STATUS: Mapping[str, int] = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "ABORTED": 409,
    "RESOURCE_EXHAUSTED": 429,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
_IN_TURN = "terminal event"


@dataclass(frozen=True)
class Refusal:
    """One reason."""

    name: str
    body: str
    codes: Sequence[str]
    status: str
    in_turn: bool
    example: str
    methods: Sequence[Method]


class ReasonUntold(Exception):
    """A reason is not told as the others are."""


def read_refusals(contract: Contract) -> list[Refusal]:
    """Every reason of the contract."""
    return [_refusal(contract, value) for value in contract.reasons]


def _refusal(contract: Contract, value: EnumValue) -> Refusal:
    name = value.name.removeprefix(PREFIX)
    told = " ".join(re.findall(r"\(([^)]*)\)", value.text.body))
    codes = [code for code in HTTP_STATUS if re.search(rf"\b{code}\b", told)]
    if not (codes or _IN_TURN in told) or not value.text.example:
        raise ReasonUntold(f"{value.name} needs a code in brackets and an example in its comment")
    named = re.search(r"HTTP (\d{3})", told)
    statuses = [named[1]] if named else [str(HTTP_STATUS[code]) for code in codes]
    return Refusal(
        name=name,
        body=value.text.body,
        codes=codes,
        status=", ".join(dict.fromkeys(statuses)),
        in_turn=_IN_TURN in told,
        example=value.text.example,
        methods=[method for method in contract.methods if re.search(rf"\b{name}\b", method.text.refusals)],
    )
