"""What is known of lanes, and what front ends and operators are told of it."""

from __future__ import annotations

from predictd.server.config.lane import LaneSignature
from predictd.server.control.publication import SettingView
from predictd.server.observe.gauges import LaneGauge, LaneState, Readiness
from predictd.server.supervise.catalog import Catalog, LaneRecord
from tests.fixtures.supervision import lane_config

SIGNATURE = LaneSignature(inputs=(), outputs=(), batches=False, max_rows=None, engine="fake")


def record(lane: int, model: str, version: int, state: LaneState, pool: int = 1) -> LaneRecord:
    one = LaneRecord(lane_config(lane, model, version), pool, instances=2, state=state)
    if state == "FAILED":
        one.reason = "no such file"
    if state == "READY":
        one.signature, one.load_seconds = SIGNATURE, 1.5
    return one


def test_a_publication_has_all_versions_highest_first_and_the_newest_ready_one_as_default() -> None:
    catalog = Catalog(
        [
            record(1, "a", 1, "READY"),
            record(2, "a", 3, "LOADING"),
            record(3, "a", 2, "READY"),
            record(4, "b", 9, "READY"),
            record(5, "a", 4, "FAILED"),
        ]
    )
    told = catalog.publication("a")
    assert [view.version for view in told.versions] == [4, 3, 2, 1]
    assert [view.state for view in told.versions] == ["FAILED", "LOADING", "READY", "READY"]
    assert told.default_version == 2
    failed, loading, ready, _ = told.versions
    assert (failed.reason, loading.signature, ready.signature) == ("no such file", None, SIGNATURE)
    assert (ready.lane, ready.pool, ready.instances) == (3, 1, 2)
    assert ready.config == lane_config(3, "a", 2)


def test_a_model_of_which_nothing_is_ready_has_no_default() -> None:
    assert Catalog([record(1, "a", 1, "LOADING")]).publication("a").default_version == 0


def test_models_are_listed_once_and_by_name() -> None:
    catalog = Catalog([record(1, "b", 1, "READY"), record(2, "a", 1, "READY"), record(3, "a", 2, "READY")])
    assert catalog.models() == ["a", "b"]
    assert [one.config.lane for one in catalog.records()] == [1, 2, 3]


def test_a_pool_hosts_its_lanes_apart_from_the_failed_ones() -> None:
    catalog = Catalog(
        [record(1, "a", 1, "READY"), record(2, "b", 1, "FAILED"), record(3, "c", 1, "LOADING", pool=2)]
    )
    assert [one.config.lane for one in catalog.in_pool(1)] == [1]
    assert [one.config.lane for one in catalog.in_pool(2)] == [3]
    assert [one.config.lane for one in catalog.failed] == [2]


def test_all_is_settled_once_each_lane_is_ready_or_failed() -> None:
    loading = record(1, "a", 1, "LOADING")
    catalog = Catalog([loading, record(2, "b", 1, "FAILED")])
    assert (catalog.settled, catalog.serving) == (False, False)
    loading.state = "READY"
    assert (catalog.settled, catalog.serving) == (True, True)
    loading.state = "FAILED"
    assert (catalog.settled, catalog.serving) == (True, False)


def test_readiness_names_every_lane() -> None:
    catalog = Catalog([record(1, "a", 1, "READY"), record(2, "b", 2, "FAILED")])
    assert catalog.readiness(ready=True, reasons=("draining",)) == Readiness(
        ready=True,
        lanes=(
            LaneGauge("a", 1, "READY", "", 1.5, (64, 64, 64)),
            LaneGauge("b", 2, "FAILED", "no such file", None, (64, 64, 64)),
        ),
        reasons=("draining",),
    )


def test_a_version_that_is_there_twice_is_shown_once_as_it_serves() -> None:
    """Two samples of a metric with the same labels are none."""
    lanes = [record(1, "a", 1, "READY"), record(2, "a", 1, "LOADING"), record(3, "a", 2, "UNLOADING")]
    (first, second) = Catalog(lanes).readiness(ready=True, reasons=()).lanes
    assert [(one.version, one.state) for one in (first, second)] == [(1, "READY"), (2, "UNLOADING")]


def test_a_version_whose_new_content_failed_serves_on_and_says_why() -> None:
    lanes = [record(1, "a", 1, "READY"), record(2, "a", 1, "FAILED"), record(3, "a", 2, "FAILED")]
    told = Catalog(lanes).publication("a").versions
    assert [(view.version, view.state, view.lane, view.reason) for view in told] == [
        (2, "FAILED", 3, "no such file"),
        (1, "READY", 1, "the old content serves on, as the new one failed: no such file"),
    ]
    # A failure that came before what serves now is over.
    over = Catalog([record(1, "a", 1, "FAILED"), record(2, "a", 1, "READY")]).publication("a").versions
    assert [view.reason for view in over] == [""]


def test_settings_are_those_of_the_version_that_requests_get() -> None:
    lanes = [record(1, "a", 1, "READY"), record(2, "a", 2, "LOADING")]
    for lane in lanes:
        lane.settings = (SettingView(name="threads", value=str(lane.config.version), origin="plan"),)
    catalog = Catalog(lanes)
    assert catalog.publication("a").settings == lanes[0].settings
    lanes[0].state = "FAILED"
    assert catalog.publication("a").settings == lanes[1].settings
