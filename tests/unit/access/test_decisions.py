"""Who may call what: the table, and the decision."""

from __future__ import annotations

import itertools

import pytest

from predictd.server.access.decisions import model_refusal, refusal
from predictd.server.access.identity import EVERY_ROLE, Identity, Role
from predictd.server.access.methods import ANY, CONTROL, INFER, OBSERVE, PUBLIC, RULES, Rule
from predictd.server.access.rules import LOCAL, REMOTE, AccessRules

WORDS_OF_CHANGE = ("Load", "Unload", "Reload", "Set", "Shutdown", "Register", "Create", "Delete", "Update")


@pytest.mark.parametrize("rule", [PUBLIC, ANY, INFER, OBSERVE, CONTROL])
def test_one_role_of_a_rule_is_enough_and_another_is_none(rule: Rule) -> None:
    for number in range(1, len(Role) + 1):
        for roles in itertools.combinations(Role, number):
            allowed = rule.public or bool(rule.roles.intersection(roles))
            expected = None if allowed else "role"
            assert refusal(rule, Identity("a", frozenset(roles)), 0) == expected


def test_nobody_and_those_whose_time_is_over_are_not_let_in() -> None:
    over = Identity("a", EVERY_ROLE, expires_unix_seconds=100.0)
    assert refusal(ANY, None, 0) == "no_credentials"
    assert [refusal(ANY, over, now) for now in (99.9, 100.0)] == [None, "invalid_credentials"]
    assert refusal(PUBLIC, None, 0) is refusal(PUBLIC, over, 200) is None


@pytest.mark.parametrize(
    ("patterns", "own", "others"),
    [
        (("*",), ("a", "", "a/b", "größe", "a\nb"), ()),
        (("res*",), ("res", "resnet50"), ("Resnet", "my-resnet", "", "\nres")),
        (("a", "b?"), ("a", "b1"), ("b", "ab", "a\n", "b12")),
        (("[ab]c",), ("ac", "bc"), ("cc", "[ab]c")),
    ],
)
def test_patterns_are_those_of_file_names(
    patterns: tuple[str, ...], own: tuple[str, ...], others: tuple[str, ...]
) -> None:
    identity = Identity("a", EVERY_ROLE, patterns)
    assert [name for name in own if model_refusal(identity, name)] == []
    assert [name for name in others if model_refusal(identity, name) != "model"] == []
    assert model_refusal(identity, None) == (None if patterns == ("*",) else "model")
    assert model_refusal(None, "a") == "no_credentials"


def test_what_changes_something_needs_control_alone() -> None:
    """LogSettings reads, too: the change asks again."""
    changing = [
        path
        for path in RULES
        if path.rpartition("/")[2]
        .removeprefix("Repository")
        .removeprefix("Model")
        .removeprefix("Handle")
        .startswith(WORDS_OF_CHANGE)
    ]
    assert len(changing) == 8
    assert all(RULES[path] == CONTROL for path in changing)
    assert {path for path, rule in RULES.items() if rule == CONTROL} == set(changing)


def test_only_health_is_everybodys() -> None:
    public = {path for path, rule in RULES.items() if rule.public}
    assert public == {
        "/grpc.health.v1.Health/Check",
        "/grpc.health.v1.Health/Watch",
        "/inference.GRPCInferenceService/ServerLive",
        "/inference.GRPCInferenceService/ServerReady",
    }


@pytest.mark.parametrize(
    ("rules", "local", "who"),
    [
        (AccessRules(), False, LOCAL),
        (AccessRules(private=False), False, REMOTE),
        (AccessRules(private=False), True, LOCAL),
        (AccessRules(private=False, allow_control=True), False, LOCAL),
        # A certificate says that somebody is known, and not that they may give commands.
        (AccessRules(private=False, tls=True, client_certificates=True), False, REMOTE),
    ],
)
def test_without_tokens_commands_come_from_this_machine(
    rules: AccessRules, local: bool, who: Identity
) -> None:
    assert rules.anybody(local=local) == who
    assert Role.CONTROL not in REMOTE.roles
