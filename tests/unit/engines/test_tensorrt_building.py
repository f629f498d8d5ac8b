"""Plans are built by another process, whose death is one line, and kept, so that each is built once."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from predictd.engines.api import LoadCancelledError
from predictd.engines.cache import CacheFolder
from predictd.engines.cancellation import Cancellation
from predictd.engines.tensorrt import building, plan_cache
from predictd.engines.tensorrt.build_messages import BuildRequest, Built
from predictd.engines.tensorrt.build_options import (
    BuildError,
    BuildOptions,
    Precision,
    options_from_parameters,
)
from predictd.engines.tensorrt.building import have_built
from predictd.engines.tensorrt.gpu_identity import GpuIdentity
from predictd.engines.tensorrt.plan_cache import TIMING_KIND, PlanWish, copy_plan, plan_for
from predictd.engines.tensorrt.plan_file import read_facts
from predictd.engines.tensorrt.progress import BuildProgress
from tests.fakes.trt_builder import tensorrt_10
from tests.fixtures import models, scripted_builder
from tests.fixtures.daemon import REPOSITORY

BINDINGS = tensorrt_10().bindings
L4 = GpuIdentity("NVIDIA L4", "8.9", "13.0")
LIMIT_BYTES = 2**20


@pytest.fixture(autouse=True)
def _scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "_MODULE", scripted_builder.__name__)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((os.environ.get("PYTHONPATH", ""), str(REPOSITORY))))


def build(word: str, folder: Path, report: Callable[[BuildProgress], None], **given: object) -> Built:
    cancel = given.pop("cancel", None)
    request = BuildRequest(
        f"/models/{word}.onnx", "digest", str(folder / "model.plan"), BuildOptions(), {}, 0
    )
    return have_built(request, report, cancel)  # type: ignore[arg-type] # as the test gives it


def unheard(_progress: BuildProgress) -> None:
    """Nobody asks."""


def test_progress_and_result_arrive(tmp_path: Path) -> None:
    heard: list[BuildProgress] = []
    result = build("fine", tmp_path, heard.append)
    assert heard == [BuildProgress(1.0, 0.25, 3.0)]
    assert (result.size_bytes, result.warnings) == (len(scripted_builder.PLAN), ("a warning",))
    assert read_facts(tmp_path / "model.plan") == result.facts


@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("killed", ("killed", "too little memory")),
        ("crashes", ("SIGABRT", "went wrong")),
        ("exits", ("status 3",)),
        ("refuses", ("no such operator",)),
    ],
)
def test_a_death_is_one_line(word: str, words: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(BuildError) as caught:
        build(word, tmp_path, unheard)
    assert all(each in str(caught.value) for each in words), caught.value
    assert "\n" not in str(caught.value)


def test_a_build_that_nobody_wants_any_more_is_ended(tmp_path: Path) -> None:
    cancel = Cancellation()
    with pytest.raises(LoadCancelledError):
        build("hangs", tmp_path, lambda _: cancel.set(), cancel=cancel)


def test_one_that_cannot_go_on_ends_its_build(tmp_path: Path) -> None:
    def fail(_progress: BuildProgress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build("hangs", tmp_path, fail)


@pytest.mark.parametrize(
    ("visible", "seen"), [(None, "1"), ("", "1"), ("4,7", "7"), ("GPU-a,GPU-b", "GPU-b"), ("3", "1")]
)
def test_the_builder_sees_one_gpu(
    visible: str | None, seen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    request = BuildRequest("/models/fine.onnx", "", str(tmp_path / "model.plan"), BuildOptions(), {}, 1)
    assert have_built(request, unheard).facts.gpu == f"CUDA_VISIBLE_DEVICES={seen}"


# The cache --------------------------------------------------------------------------------------------------------


def wish(model: Path, options: BuildOptions | None = None, gpu: GpuIdentity | None = L4) -> PlanWish:
    return PlanWish(model, options or BuildOptions(), {}, 0, gpu)


def plan_key(cache: CacheFolder, of: PlanWish) -> str:
    """The folder that holds a plan, by name."""
    with plan_for(of, BINDINGS, cache, unheard) as plan:
        assert plan.read_bytes() == scripted_builder.PLAN
        return plan.parent.name


def test_a_plan_is_built_once_for_all_that_it_depends_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = CacheFolder(tmp_path / "cache", LIMIT_BYTES)
    model = models.affine(tmp_path / "model.onnx")
    same = wish(model)
    first = plan_key(cache, same)
    renamed = models.affine(tmp_path / "other.onnx")
    renamed.write_bytes(model.read_bytes())
    half = BuildOptions(precision=Precision.FP16)
    keys = {
        plan_key(cache, each)
        for each in (
            wish(model, half),
            wish(model, gpu=replace(L4, driver="13.1")),
            wish(model, gpu=replace(L4, name="NVIDIA L40")),
            replace(same, declared={"x": (-1, 4)}),
            wish(models.affine(tmp_path / "third.onnx", scale=3.0)),
        )
    }
    assert len(keys | {first}) == 6
    # No builder is started any more, wherever the model lies and however the library is named.
    monkeypatch.setattr(building, "_MODULE", "no.such.module")
    named = wish(model, BuildOptions(flavour="tensorrt"))
    assert {plan_key(cache, each) for each in (same, wish(renamed), named)} == {first}


def test_without_a_cache_the_plan_is_there_as_long_as_it_is_needed(tmp_path: Path) -> None:
    model = models.affine(tmp_path / "model.onnx")
    with plan_for(wish(model), BINDINGS, None, unheard) as plan:
        assert plan.read_bytes() == scripted_builder.PLAN
        facts = copy_plan(plan, tmp_path / "copy.plan")
    assert not plan.exists()
    assert read_facts(tmp_path / "copy.plan") == facts
    assert facts.model_digest


def test_what_the_cache_does_not_take_is_built_once_and_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = CacheFolder(tmp_path / "cache", 1)
    builds = []

    def counted(*given: Any) -> Built:
        builds.append(given)
        return have_built(*given)

    monkeypatch.setattr(plan_cache, "have_built", counted)
    with plan_for(wish(models.affine(tmp_path / "model.onnx")), BINDINGS, cache, unheard) as plan:
        assert plan.read_bytes() == scripted_builder.PLAN
        assert read_facts(plan) is not None
    assert len(builds) == 1
    assert not plan.exists()


def test_a_build_that_fails_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    cache = CacheFolder(tmp_path / "cache", LIMIT_BYTES)
    model = models.affine(tmp_path / "killed.onnx")
    with (
        pytest.raises(BuildError, match="too little memory"),
        plan_for(wish(model), BINDINGS, cache, unheard),
    ):
        pass
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []


def test_what_was_measured_is_kept_in_the_cache_or_in_a_file(tmp_path: Path) -> None:
    cache = CacheFolder(tmp_path / "cache", LIMIT_BYTES)
    for scale in (1.0, 2.0):
        plan_key(cache, wish(models.affine(tmp_path / "model.onnx", scale=scale)))
    (timings,) = (tmp_path / "cache" / TIMING_KIND).glob("*/timing.cache")
    assert timings.read_bytes() == b"measured" * 2
    own = replace(wish(models.affine(tmp_path / "model.onnx", scale=3.0)), timing_cache=tmp_path / "timings")
    plan_key(cache, own)
    assert (tmp_path / "timings").read_bytes() == b"measured"


_HOLDER = """
import sys, pathlib
from predictd.engines.cache import CacheFolder
def build(folder):
    print("at work", flush=True)
    sys.stdin.read()
    (folder / "model.plan").write_bytes(b"a plan")
CacheFolder(pathlib.Path(sys.argv[1]), 2**20).make("tensorrt", sys.argv[2], build)
"""


def test_two_daemons_build_a_plan_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = models.affine(tmp_path / "model.onnx")
    key = plan_key(CacheFolder(tmp_path / "aside", LIMIT_BYTES), wish(model))
    monkeypatch.setattr(building, "_MODULE", "no.such.module")
    cache = CacheFolder(tmp_path / "cache", LIMIT_BYTES)
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(tmp_path / "cache"), key],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with holder:
        assert holder.stdin is not None and holder.stdout is not None
        assert holder.stdout.readline() == b"at work\n"
        cancel = Cancellation()
        with (
            pytest.raises(LoadCancelledError),
            plan_for(wish(model), BINDINGS, cache, lambda _: cancel.set(), cancel),
        ):
            pass
        waits = threading.Event()
        heard: list[BuildProgress] = []

        def hear(progress: BuildProgress) -> None:
            heard.append(progress)
            if not waits.is_set():
                waits.set()
                assert holder.stdin is not None
                holder.stdin.close()

        with plan_for(wish(model), BINDINGS, cache, hear) as plan:
            assert plan.parent.name == key
        assert heard and all(progress.waits for progress in heard)


# Parameters -------------------------------------------------------------------------------------------------------


def test_parameters_say_how_a_model_is_built() -> None:
    parameters = {
        "precision": "fp16",
        "min_shapes": "x:1x4",
        "opt_shapes": "x:8x4",
        "max_shapes": "x:32x4",
        "workspace_bytes": "1024",
        "version_compatible": "true",
        "bindings": "tensorrt_rtx",
        "cuda_graphs": "false",
    }
    options = options_from_parameters(parameters, (1, 8))
    assert (options.precision, options.batch_sizes, options.workspace_bytes) == (Precision.FP16, (1, 8), 1024)
    assert (options.version_compatible, options.flavour) == (True, "tensorrt_rtx")
    assert options.wishes.maximum == (("x", (32, 4)),)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("precision", "fp8"),
        ("sparse", "yes"),
        ("workspace_bytes", "0"),
        ("workspace_bytes", "1GiB"),
        ("max_shapes", "x"),
        ("hardware_compatibility", "all"),
        ("bindings", "onnx"),
    ],
)
def test_a_parameter_with_another_value_is_named(name: str, value: str) -> None:
    with pytest.raises(BuildError, match=f"{name}.*{value}"):
        options_from_parameters({name: value}, (1,))
