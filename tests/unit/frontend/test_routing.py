"""Which lane answers: names, versions, labels, the default, and models that come and go."""

from __future__ import annotations

import pytest

from predictd.engines.api import DType
from predictd.server.control.publication import LaneView
from predictd.server.errors import ModelUnavailableError, UnknownModelError
from predictd.server.frontend.inference import TensorInfo
from predictd.server.frontend.routing import Routes
from tests.fixtures.frontend import SECRET, publication, view


@pytest.fixture
def routes() -> Routes:
    return Routes(SECRET)


def test_no_choice_takes_the_default_version_and_a_number_takes_that_version(routes: Routes) -> None:
    routes.publish(publication(view(3, "LOADING"), view(2), view(1)))
    assert routes.lane("m", None, None).version == 2
    assert routes.lane("m", 1, None).version == 1
    assert routes.version("m", None, None).version == 2


def test_an_unknown_model_version_or_label_is_named_with_what_there_is(routes: Routes) -> None:
    routes.publish(publication(view(2), view(1), labels={"old": 2, "new": 2, "gone": 7}))
    with pytest.raises(UnknownModelError, match=r"^model 'n' is not known$"):
        routes.lane("n", None, None)
    with pytest.raises(UnknownModelError, match=r"^model 'n' is not known$"):
        routes.model("n")
    with pytest.raises(UnknownModelError, match=r"^model 'm' has no version 3 \(versions: 2, 1\)$"):
        routes.lane("m", 3, None)
    with pytest.raises(UnknownModelError, match=r"^model 'm' has no label 'x' \(labels: gone, new, old\)$"):
        routes.lane("m", None, "x")
    with pytest.raises(
        UnknownModelError, match=r"^label 'gone' of model 'm' means version 7, which is not there$"
    ):
        routes.lane("m", None, "gone")


def test_a_model_without_labels_says_so(routes: Routes) -> None:
    routes.publish(publication(view()))
    with pytest.raises(UnknownModelError, match=r"\(labels: none\)$"):
        routes.lane("m", None, "stable")


def test_a_label_stands_for_its_version_even_if_that_does_not_serve(routes: Routes) -> None:
    routes.publish(publication(view(2, "FAILED"), view(1), labels={"stable": 1, "canary": 2}))
    assert [info.labels for info in routes.model("m").versions] == [("canary",), ("stable",)]
    assert routes.lane("m", None, "stable").version == 1
    with pytest.raises(ModelUnavailableError, match=r"^version 2 of model 'm' failed to load$"):
        routes.lane("m", None, "canary")


@pytest.mark.parametrize(
    ("state", "what"),
    [
        ("LOADING", "is still loading"),
        ("FAILED", "failed to load"),
        ("UNLOADING", "is being unloaded"),
        ("ODD", "is not ready"),
    ],
)
@pytest.mark.parametrize("version", [None, 1])
def test_a_version_that_does_not_serve_says_why_not_and_hides_the_reason(
    routes: Routes, state: str, what: str, version: int | None
) -> None:
    routes.publish(publication(view(1, state, reason="/models/m.onnx is broken")))
    with pytest.raises(ModelUnavailableError) as caught:
        routes.lane("m", version, None)
    assert str(caught.value) == (
        f"version 1 of model 'm' {what}; the daemon's log and 'predictd models' say why"
    )
    with pytest.raises(ModelUnavailableError):
        routes.version("m", version, None)


def test_publishing_again_keeps_the_lane_with_all_that_it_remembers(routes: Routes) -> None:
    routes.publish(publication(view(1)))
    lane = routes.lane("m", 1, None)
    routes.publish(publication(view(2), view(1)))
    assert routes.lane("m", 1, None) is lane
    assert routes.lane("m", None, None).version == 2


@pytest.mark.parametrize("moved", [view(1, pool=5), view(1, lane=99)])
def test_a_lane_that_moved_is_a_new_one(routes: Routes, moved: LaneView) -> None:
    routes.publish(publication(view(1)))
    lane = routes.lane("m", 1, None)
    routes.publish(publication(moved))
    assert routes.lane("m", 1, None) is not lane
    assert (routes.lane("m", 1, None).id, routes.lane("m", 1, None).pool) == (moved.lane, moved.pool)


def test_a_model_that_failed_and_came_back_serves_again(routes: Routes) -> None:
    routes.publish(publication(view(1)))
    routes.publish(publication(view(1, "FAILED")))
    with pytest.raises(ModelUnavailableError):
        routes.lane("m", None, None)
    routes.publish(publication(view(1)))
    assert routes.lane("m", None, None).version == 1


def test_a_model_published_without_versions_is_forgotten(routes: Routes) -> None:
    routes.publish(publication(view(1)))
    routes.publish(publication(view(1), name="n"))
    routes.publish(publication())
    assert [info.name for info in routes.models()] == ["n"]
    with pytest.raises(UnknownModelError):
        routes.lane("m", None, None)
    routes.publish(publication(name="never known"))
    assert [info.name for info in routes.models()] == ["n"]


def test_models_are_listed_by_name_with_what_clients_may_know(routes: Routes) -> None:
    routes.publish(publication(view(1), name="b"))
    routes.publish(publication(view(2, "LOADING"), view(1), name="a"))
    assert [info.name for info in routes.models()] == ["a", "b"]
    info = routes.model("a")
    loading, ready = info.versions
    assert (info.default_version, loading.version, loading.state, loading.inputs) == (1, 2, "LOADING", ())
    assert (loading.engine, loading.batches, loading.max_batch_size) == ("", False, 0)
    assert ready.inputs == (TensorInfo("x", DType.FP32, (-1, 2)),)
    assert (ready.engine, ready.batches, ready.max_batch_size) == ("fake", True, 8)
