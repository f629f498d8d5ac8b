"""Which versions of a model are served, and what its labels mean. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from predictd.server.config.model_config import All, Latest, VersionPolicy

DEFAULT_POLICY = Latest(1)


def served(versions: Sequence[int], policy: VersionPolicy | None) -> tuple[int, ...]:
    """The versions to serve, highest first.

    Args:
        versions: Those that are there.
        policy: None is the highest one.
    """
    there = sorted(set(versions), reverse=True)
    policy = policy or DEFAULT_POLICY
    if isinstance(policy, Latest):
        return tuple(there[: policy.count])
    if isinstance(policy, All):
        return tuple(there)
    return tuple(version for version in there if version in policy.versions)


def missing(versions: Iterable[int], policy: VersionPolicy | None) -> tuple[int, ...]:
    """The versions that a policy names and that are not there."""
    if policy is None or isinstance(policy, Latest | All):
        return ()
    return tuple(sorted(set(policy.versions).difference(versions)))


def wrong_labels(
    labels: Mapping[str, int], versions: Iterable[int], served_now: Iterable[int]
) -> Mapping[str, str]:
    """Labels that no request can use, each with the reason.

    Args:
        labels: Versions by label.
        versions: Those that are there.
        served_now: Those of them that are served.
    """
    there, chosen = set(versions), set(served_now)
    return {
        label: f"version {version} is not served" if version in there else f"there is no version {version}"
        for label, version in labels.items()
        if version not in chosen
    }
