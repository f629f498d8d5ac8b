"""From a path to what a worker would be told."""

from __future__ import annotations

from pathlib import Path

import pytest

from predictd.server.config.settings import Settings
from predictd.server.measure.engine_process import MeasureError
from predictd.server.measure.subject import Subject, Wish, subject
from tests.fixtures import models

SETTINGS = Settings(cache_limit_bytes=0)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for version in (1, 3):
        folder = tmp_path / "models" / "m" / str(version)
        folder.mkdir(parents=True)
        models.affine(folder / "model.onnx")
    return tmp_path / "models"


def of(text: object, **wish: object) -> Subject:
    return subject(Wish.of(str(text), **wish), SETTINGS)  # type: ignore[arg-type]


def test_a_folder_has_versions(repository: Path) -> None:
    assert of(repository).lane.version == 3
    assert of(f"{repository}/m:1").lane.path == f"{repository}/m/1/model.onnx"
    with pytest.raises(MeasureError, match="there is no version 2; there is 3, 1"):
        of(f"{repository}/m:2")


def test_a_file_of_that_name_comes_before_a_version(tmp_path: Path) -> None:
    assert Wish.of(str(models.affine(tmp_path / "m:1"))).version is None


def test_what_is_asked_for_comes_before_what_the_model_says(repository: Path) -> None:
    (repository / "m" / "model.toml").write_text(
        'threads = 2\ninstances = 2\nengine = "onnxruntime"\n[parameters]\ngraph_optimization_level = "basic"\n'
    )
    own = of(repository)
    assert (own.lane.engine, own.lane.parameters) == ("onnxruntime", {"graph_optimization_level": "basic"})
    assert len(own.plans) == 2
    asked = of(repository, threads=1, instances=1, engine="openvino")
    assert (asked.lane.threads, len(asked.plans), asked.lane.engine, asked.lane.parameters) == (
        1,
        1,
        "openvino",
        {},
    )


def test_several_models_or_none_are_refused(repository: Path, tmp_path: Path) -> None:
    models.affine(repository / "other.onnx")
    with pytest.raises(MeasureError, match="give one of its 2 models: m, other"):
        of(repository)
    with pytest.raises(MeasureError, match="no such file or folder"):
        of(tmp_path / "none.onnx")
    with pytest.raises(MeasureError, match=r"m\\udcff.onnx' is not UTF-8: rename it"):
        of(tmp_path / "m\udcff.onnx")
