from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predictd.server.config.model_config import All, Latest, Specific, VersionPolicy
from predictd.server.repository.policies import missing, served, wrong_labels

VERSIONS = st.lists(st.integers(1, 50))
POLICIES = st.one_of(
    st.none(),
    st.builds(Latest, st.integers(1, 5)),
    st.builds(All),
    st.builds(Specific, st.lists(st.integers(1, 50), min_size=1).map(tuple)),
)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (None, (10,)),
        (Latest(1), (10,)),
        (Latest(2), (10, 9)),
        (Latest(7), (10, 9, 1)),
        (All(), (10, 9, 1)),
        (Specific((1, 10)), (10, 1)),
        (Specific((2,)), ()),
    ],
)
def test_the_versions_that_a_policy_serves(policy: VersionPolicy | None, expected: tuple[int, ...]) -> None:
    assert served([9, 1, 10], policy) == expected


@given(VERSIONS, POLICIES)
def test_no_policy_serves_what_is_not_there_or_serves_it_twice(
    versions: list[int], policy: VersionPolicy | None
) -> None:
    chosen = served(versions, policy)
    assert set(chosen) <= set(versions)
    assert list(chosen) == sorted(set(chosen), reverse=True)
    assert bool(chosen) == bool(versions) or isinstance(policy, Specific)


@given(VERSIONS, POLICIES)
def test_what_a_policy_names_is_served_or_missing(versions: list[int], policy: VersionPolicy | None) -> None:
    absent = missing(versions, policy)
    assert not set(absent) & set(versions)
    if isinstance(policy, Specific):
        assert set(absent) | set(served(versions, policy)) == set(policy.versions)
    else:
        assert absent == ()


def test_a_label_that_no_request_can_use_has_a_reason() -> None:
    labels = {"stable": 3, "old": 1, "gone": 7}
    assert wrong_labels(labels, [1, 2, 3], [3]) == {
        "old": "version 1 is not served",
        "gone": "there is no version 7",
    }
