"""The rules of permissions hold for any roles."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from orginabox.api.v1 import role_pb2

from services.identity.mapping import permissions_from_proto, permissions_to_proto
from services.identity.permissions import EVERYTHING, FLAGS, MANAGE_BOX, Names, Permissions
from services.identity.role import BUILT_INS, PermissionEscalation, refuse_manage_box
from services.identity.standing import effective
from services.kit.ids import OPERATOR, new_id
from services.kit.policy import permissions as flags_of_the_contract

NAMES = st.frozensets(st.sampled_from(["*", "bash", "edit", "web"]), max_size=3)
LIMITS = st.none() | st.floats(min_value=0, max_value=1000)
PERMISSIONS = st.builds(Permissions, st.frozensets(st.sampled_from(sorted(FLAGS))), NAMES, NAMES, NAMES, LIMITS, LIMITS)
TOOLS = ("bash", "edit", "web", "something-else")


def limit(value: float | None) -> float:
    return float("inf") if value is None else value


def test_the_flags_are_those_of_the_contract() -> None:
    assert flags_of_the_contract() == FLAGS


@given(PERMISSIONS)
def test_a_role_comes_back_from_the_wire_and_from_the_database_as_it_was(role: Permissions) -> None:
    assert permissions_from_proto(permissions_to_proto(role)) == role
    assert Permissions.from_document(role.to_document()) == role


@given(st.lists(PERMISSIONS, max_size=4))
def test_a_union_has_every_flag_and_denies_what_any_role_denies(roles: list[Permissions]) -> None:
    found = Permissions.union(roles)
    assert found.flags == frozenset().union(*(role.flags for role in roles))
    for tool in TOOLS:
        allowed = any(tool in Names.read(role.tools_allowed) for role in roles)
        denied = any(tool in Names.read(role.tools_denied) for role in roles)
        assert (tool in found.tools) == (allowed and not denied)
    assert limit(found.monthly_limit_usd) == min((limit(role.monthly_limit_usd) for role in roles), default=limit(None))


@given(st.lists(PERMISSIONS, max_size=4), st.randoms())
def test_a_union_does_not_depend_on_the_order(roles: list[Permissions], random: object) -> None:
    assert Permissions.union(roles) == Permissions.union(reversed(roles))
    assert Permissions.union([*roles, *roles]) == Permissions.union(roles)


@given(PERMISSIONS, PERMISSIONS)
def test_an_agent_may_never_do_more_than_its_user_or_than_it_may_itself(user: Permissions, agent: Permissions) -> None:
    both = user.under(agent)
    assert not user.lacks(both)
    assert not agent.lacks(both)
    for tool in TOOLS:
        assert (tool in both.tools) == (tool in user.tools and tool in agent.tools)


@given(PERMISSIONS)
def test_everybody_may_give_what_they_have(role: Permissions) -> None:
    assert not role.lacks(role)
    assert not role.lacks(Permissions.nothing())
    assert not EVERYTHING.lacks(role)


@given(PERMISSIONS, PERMISSIONS, PERMISSIONS)
def test_giving_is_transitive(one: Permissions, two: Permissions, three: Permissions) -> None:
    """Nobody gets by a second person what the first could not give them."""
    if not one.lacks(two) and not two.lacks(three):
        assert not one.lacks(three)


@given(PERMISSIONS, PERMISSIONS, st.lists(PERMISSIONS, max_size=3))
def test_who_holds_only_what_the_giver_has_stays_below_the_giver(
    giver: Permissions, given_role: Permissions, held: list[Permissions]
) -> None:
    before = Permissions.union(held)
    if not giver.lacks(before) and not giver.lacks(given_role):
        assert not giver.lacks(Permissions.union([*held, given_role]))


@given(PERMISSIONS, PERMISSIONS, PERMISSIONS)
def test_a_change_that_gives_nothing_is_open_to_all(giver: Permissions, role: Permissions, other: Permissions) -> None:
    assert not giver.lacks_of_change(role, role)
    if not giver.lacks_of_change(role, other) and not giver.lacks(role):
        assert not giver.lacks(other)


@pytest.mark.parametrize(
    ("granter", "granted", "lacking"),
    [
        (Permissions(), Permissions(frozenset({"admin.manage_users"})), "admin.manage_users"),
        (Permissions(templates=frozenset({"a"})), Permissions(templates=frozenset({"*"})), "agents.use_templates"),
        (Permissions(tools_allowed=frozenset({"*"}), tools_denied=frozenset({"bash"})),
         Permissions(tools_allowed=frozenset({"*"})), "tools.allowed"),
        (Permissions(tools_allowed=frozenset({"*"}), tools_denied=frozenset({"bash"})),
         Permissions(tools_allowed=frozenset({"edit"})), ""),
        (Permissions(tools_allowed=frozenset({"edit"})), Permissions(tools_allowed=frozenset({"*"})), "tools.allowed"),
        (Permissions(monthly_limit_usd=10), Permissions(monthly_limit_usd=10.5), "cost.monthly_limit_usd"),
        (Permissions(monthly_limit_usd=10), Permissions(), "cost.monthly_limit_usd"),
        (Permissions(per_request_limit_usd=0), Permissions(), "cost.per_request_limit_usd"),
        (Permissions(monthly_limit_usd=10), Permissions(monthly_limit_usd=0), ""),
    ],
)  # fmt: skip
def test_what_is_lacking_is_named(granter: Permissions, granted: Permissions, lacking: str) -> None:
    assert granter.lacks(granted) == lacking


def test_taking_a_denial_away_gives_the_tool() -> None:
    giver = Permissions(tools_allowed=frozenset({"*"}), tools_denied=frozenset({"bash"}))
    held = Permissions(tools_allowed=frozenset({"*"}))
    denied = Permissions.union([held, Permissions(tools_denied=frozenset({"bash"}))])
    assert giver.lacks_of_change(denied, held) == "tools.allowed"
    assert not giver.lacks_of_change(held, denied)


def test_the_built_in_roles_stand_above_each_other() -> None:
    owner, admin, member, viewer = (each.permissions for each in BUILT_INS)
    assert not owner.lacks(admin)
    assert not admin.lacks(member)
    assert not member.lacks(viewer)
    assert admin.lacks(owner) == "admin.manage_tenant"
    assert member.lacks(admin)
    assert viewer.lacks(member)
    assert not viewer.may("agents.run")


def test_nobody_but_the_operator_manages_the_box() -> None:
    smuggled = Permissions(frozenset({MANAGE_BOX, "agents.run"}))
    assert effective(new_id(), [smuggled]).flags == {"agents.run"}
    assert effective(OPERATOR, []) == EVERYTHING
    assert not any(each.permissions.may(MANAGE_BOX) for each in BUILT_INS)
    with pytest.raises(PermissionEscalation):
        refuse_manage_box(smuggled)


def test_what_this_release_does_not_know_is_no_permission() -> None:
    document = {"admin": {"rule_the_world": True, "manage_users": "yes"}, "pets": {"feed": True}}
    assert Permissions.from_document(document) == Permissions()


def test_a_limit_of_nothing_is_not_a_limit_that_is_not_set() -> None:
    proto = role_pb2.Permissions(cost=role_pb2.CostLimits(monthly_limit_usd=0))
    assert permissions_from_proto(proto).monthly_limit_usd == 0
    assert permissions_from_proto(role_pb2.Permissions()).monthly_limit_usd is None
