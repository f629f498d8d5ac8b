"""What labels and splits may be set to, and what labels mean while versions come and go."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from predictd.server.repository.traffic import (
    LABELS_MAX,
    SHARES_MAX,
    Known,
    Label,
    SetBy,
    Traffic,
    TrafficError,
    default_version,
    labels_now,
    remove_label,
    set_label,
    set_split,
    without_effect,
)

KNOWN = Known("m", {4: "LOADING", 3: "READY", 2: "FAILED", 1: "READY"}, {"stable": 1})
NOTHING = Traffic()


def refused(change: Callable[[], object]) -> tuple[str, str]:
    with pytest.raises(TrafficError) as caught:
        change()
    return caught.value.status, str(caught.value)


def test_a_label_is_set_moved_and_taken_back() -> None:
    one = set_label(KNOWN, NOTHING, "canary", 3, allow_unready=False)
    assert one == Traffic({"canary": 3})
    two = set_label(KNOWN, one, "canary", 1, allow_unready=False)
    assert two == Traffic({"canary": 1})
    assert remove_label(KNOWN, two, "canary") == NOTHING


@pytest.mark.parametrize("version", [2, 4])
def test_a_version_that_is_not_ready_is_refused_unless_asked_otherwise(version: int) -> None:
    state = KNOWN.states[version]
    said = f"version {version} of model 'm' is {state}: wait until it is READY, or say that it may be unready"
    for change in (
        lambda: set_label(KNOWN, NOTHING, "canary", version, allow_unready=False),
        lambda: set_split(KNOWN, NOTHING, [(3, 90), (version, 10)], allow_unready=False),
    ):
        assert refused(change) == ("FAILED_PRECONDITION", said)
    assert set_label(KNOWN, NOTHING, "canary", version, allow_unready=True).labels == {"canary": version}
    assert set_split(KNOWN, NOTHING, [(version, 100)], allow_unready=True).split == {version: 100}


@pytest.mark.parametrize("allow_unready", [False, True])
def test_what_is_not_there_is_not_found(allow_unready: bool) -> None:
    nowhere = Known("n", {}, {})
    assert refused(lambda: set_label(KNOWN, NOTHING, "a", 9, allow_unready=allow_unready)) == (
        "NOT_FOUND",
        "model 'm' has no version 9 (versions: 4, 3, 2, 1)",
    )
    for change in (
        lambda: set_label(nowhere, NOTHING, "a", 1, allow_unready=allow_unready),
        lambda: remove_label(nowhere, NOTHING, "a"),
        lambda: set_split(nowhere, NOTHING, [(1, 100)], allow_unready=allow_unready),
        lambda: set_split(nowhere, NOTHING, [], allow_unready=allow_unready),
    ):
        assert refused(change) == ("NOT_FOUND", "model 'n' is not known")


def test_what_was_set_for_a_model_that_is_gone_can_be_taken_back() -> None:
    nowhere = Known("n", {}, {})
    kept = Traffic({"a": 3}, {3: 100})
    assert remove_label(nowhere, kept, "a") == Traffic({}, {3: 100})
    assert set_split(nowhere, kept, [], allow_unready=False) == Traffic({"a": 3})


def test_a_label_of_the_configuration_can_be_covered_and_not_removed() -> None:
    covered = set_label(KNOWN, NOTHING, "stable", 3, allow_unready=False)
    assert labels_now(KNOWN, covered, {})[0] == (Label("stable", 3, SetBy.RUN_TIME),)
    uncovered = remove_label(KNOWN, covered, "stable")
    assert labels_now(KNOWN, uncovered, {})[0] == (Label("stable", 1, SetBy.CONFIGURATION),)
    assert refused(lambda: remove_label(KNOWN, uncovered, "stable")) == (
        "FAILED_PRECONDITION",
        "label 'stable' of model 'm' is set by its configuration: remove it there",
    )
    assert refused(lambda: remove_label(KNOWN, NOTHING, "x")) == ("NOT_FOUND", "model 'm' has no label 'x'")


@pytest.mark.parametrize("label", ["", "7", "a b", "x" * 65, "ä"])
def test_a_label_has_the_shape_that_configurations_demand(label: str) -> None:
    status, message = refused(lambda: set_label(KNOWN, NOTHING, label, 3, allow_unready=False))
    assert (status, "cannot be a label" in message) == ("INVALID_ARGUMENT", True)


def test_the_number_of_labels_has_a_bound() -> None:
    full = Traffic({f"l{number}": 3 for number in range(LABELS_MAX)})
    assert refused(lambda: set_label(KNOWN, full, "more", 3, allow_unready=False))[0] == "FAILED_PRECONDITION"
    assert set_label(KNOWN, full, "l7", 1, allow_unready=False).labels["l7"] == 1


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ([(3, 90), (1, 11)], "the shares make 101%, not 100%"),
        ([(3, 99)], "the shares make 99%, not 100%"),
        ([(3, 50), (3, 50)], "the split names a version twice"),
        ([(3, 100), (1, 0)], "version 1 cannot have 0%: give 1 to 100, or leave it out"),
        ([(3, 101), (1, -1)], "version 3 cannot have 101%: give 1 to 100, or leave it out"),
        ([(n, 1) for n in range(1, SHARES_MAX + 2)], "a split has at most 16 versions, not 17"),
    ],
)
def test_percentages_make_a_whole(shares: list[tuple[int, int]], message: str) -> None:
    assert refused(lambda: set_split(KNOWN, NOTHING, shares, allow_unready=True)) == (
        "INVALID_ARGUMENT",
        message,
    )


def test_a_split_replaces_the_one_before_and_leaves_the_labels() -> None:
    one = set_split(KNOWN, Traffic({"a": 1}), [(3, 90), (1, 10)], allow_unready=False)
    assert one == Traffic({"a": 1}, {3: 90, 1: 10})
    assert set_split(KNOWN, one, [(1, 100)], allow_unready=False).split == {1: 100}
    assert set_split(KNOWN, one, [], allow_unready=False) == Traffic({"a": 1})


def test_the_default_is_the_largest_share_that_is_ready_else_the_highest_version() -> None:
    assert default_version({}, [1, 3, 2]) == 3
    assert default_version({1: 90, 3: 10}, [1, 3]) == 1
    assert default_version({1: 90, 3: 10}, [3, 4]) == 3
    assert default_version({1: 50, 3: 50}, [1, 3]) == 3
    assert default_version({7: 100}, [1, 2]) == 2
    assert default_version({1: 100}, []) == 0


def meanings(*moments: tuple[Mapping[int, str], int]) -> list[tuple[int, int]]:
    """What a label means, and what it will mean, while states and the version that it is set to change."""
    before: dict[str, int] = {}
    found = []
    for states, version in moments:
        (label,), before = labels_now(Known("m", states, {"stable": version}), NOTHING, before)
        found.append((label.version, label.next_version))
    return found


def test_a_label_moves_only_once_its_version_is_ready() -> None:
    old, both = {1: "READY", 2: "LOADING"}, {1: "READY", 2: "READY"}
    assert meanings((old, 1), (old, 2), (both, 2), ({1: "UNLOADING", 2: "READY"}, 2)) == [
        (1, 0),
        (1, 2),
        (2, 0),
        (2, 0),
    ]


def test_a_label_whose_version_stops_serving_does_not_fall_back() -> None:
    both, crashed = {1: "READY", 2: "READY"}, {1: "READY", 2: "LOADING"}
    assert meanings((both, 1), (both, 2), (crashed, 2), (both, 2)) == [(1, 0), (2, 0), (2, 0), (2, 0)]


def test_a_label_whose_old_version_is_gone_means_the_new_one_ready_or_not() -> None:
    assert meanings(({1: "READY", 2: "LOADING"}, 1), ({2: "LOADING"}, 2)) == [(1, 0), (2, 0)]


def test_what_names_a_version_that_is_not_there_is_told() -> None:
    kept = Traffic({"a": 3, "b": 1}, {1: 90, 4: 10})
    gone = "which is not there: it has no effect until it is"
    assert without_effect("m", kept, {1}) == [
        f"label 'a' of model 'm' was set at run time to version 3, {gone}",
        f"the split of model 'm' that was set at run time names version 4, {gone}",
    ]
    assert without_effect("m", kept, {1, 3, 4}) == []
