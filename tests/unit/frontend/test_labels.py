"""Names of classes in what front ends tell of a model."""

from __future__ import annotations

from pathlib import Path

import pytest

from predictd.engines.api import DType
from predictd.server.config.labels import read_labels
from predictd.server.config.lane import WireTensor
from predictd.server.control.publication import PublishModel
from predictd.server.frontend.routing import Routes
from tests.fixtures.frontend import SECRET, publication, signature, view


def published(path: Path, *versions: int) -> PublishModel:
    output = WireTensor("y", DType.FP32, (-1, 2), False, str(path), read_labels(path).digest)
    return publication(*(view(number, signature=signature(outputs=[output])) for number in versions))


def labels(routes: Routes, version: int = 1) -> tuple[str, ...]:
    return routes.version("m", version, None).outputs[0].labels


def test_outputs_have_the_names_of_their_file_and_inputs_none(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_text("cat\ndog\n")
    routes = Routes(SECRET)
    routes.publish(published(path, 1))
    assert labels(routes) == ("cat", "dog")
    assert routes.version("m", 1, None).inputs[0].labels == ()


def test_names_that_are_known_are_not_read_again(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_text("cat\ndog\n")
    routes, again = Routes(SECRET), published(path, 2, 1)
    routes.publish(published(path, 1))
    path.unlink()
    routes.publish(again)
    assert labels(routes, 1) is labels(routes, 2)
    assert labels(routes, 2) == ("cat", "dog")


@pytest.mark.parametrize("content", [None, "other\n", ""])
def test_a_file_that_changed_since_the_load_gives_no_names(
    content: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "labels.txt"
    path.write_text("cat\ndog\n")
    message = published(path, 1)
    if content is None:
        path.unlink()
    else:
        path.write_text(content)
    routes = Routes(SECRET)
    routes.publish(message)
    routes.publish(message)
    assert labels(routes) == ()
    assert [str(path) in record.message for record in caplog.records] == [True]
