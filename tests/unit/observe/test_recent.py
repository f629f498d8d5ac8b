"""The last warnings and errors."""

from __future__ import annotations

from predictd.server.observe.recent import RecentEvent, RecentEvents


def _event(number: int) -> RecentEvent:
    return RecentEvent(float(number), "warning", "supervisor", 1, "", f"event {number}")


def test_the_newest_are_kept_and_come_first() -> None:
    recent = RecentEvents(limit=3)

    for number in range(5):
        recent.add(_event(number))

    assert [event.text for event in recent.newest_first()] == ["event 4", "event 3", "event 2"]
