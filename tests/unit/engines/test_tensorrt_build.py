"""Building with TensorRT-RTX for real, which needs no GPU; and with a fake of the versions that do."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from predictd.engines.api import DType
from predictd.engines.tensorrt import build as building_module
from predictd.engines.tensorrt.bindings import load_bindings
from predictd.engines.tensorrt.build import build_plan
from predictd.engines.tensorrt.build_messages import BuildRequest, Built
from predictd.engines.tensorrt.build_options import (
    BuildError,
    BuildOptions,
    HardwareCompatibility,
    Precision,
)
from predictd.engines.tensorrt.gpu_identity import GpuIdentity
from predictd.engines.tensorrt.plan_file import read_facts, read_header
from predictd.engines.tensorrt.profiles import ShapeWishes, parse_shapes
from predictd.engines.tensorrt.progress import BuildProgress
from tests.fakes.trt_builder import PLAN, FakeBuilderModule, tensorrt_8_6, tensorrt_10, tensorrt_11
from tests.fixtures import light_models, models

ADA = ("8.9",)


@pytest.fixture
def rtx() -> None:
    """Skip where TensorRT-RTX is not installed."""
    pytest.importorskip("tensorrt_rtx_bindings", reason="tensorrt-rtx is not installed", exc_type=ImportError)


def request_for(model: Path, options: BuildOptions, **more: object) -> BuildRequest:
    plan = str(model.with_suffix(".plan"))
    given = {"declared": {}, "device": None} | more
    return BuildRequest(str(model), "digest", plan, options, **given)  # type: ignore[arg-type] # as the test gives it


def built(model: Path, options: BuildOptions) -> Built:
    return build_plan(
        request_for(model, replace(options, flavour="tensorrt_rtx")), load_bindings("tensorrt_rtx"), _unheard
    )


def _unheard(_progress: BuildProgress) -> None:
    """Nobody asks."""


# For real ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("rtx")
@pytest.mark.parametrize("name", light_models.NAMES)
def test_known_networks_are_built_with_batches(name: str, tmp_path: Path) -> None:
    model = light_models.with_batches(name, tmp_path / "model.onnx")
    result = built(model, BuildOptions(batch_sizes=(4, 8), compute_capabilities=ADA))
    header = read_header(model.with_suffix(".plan"))
    assert header is not None
    assert (header.flavour, header.version) == ("tensorrt_rtx", result.facts.version)
    assert header.targets == ADA
    assert read_facts(model.with_suffix(".plan")) == result.facts
    assert result.size_bytes == model.with_suffix(".plan").stat().st_size > 10_000
    assert result.peak_bytes > 2**26


@pytest.mark.usefixtures("rtx")
def test_the_same_model_gives_the_same_plan_and_fewer_gpus_a_smaller_one(tmp_path: Path) -> None:
    model = models.affine(tmp_path / "model.onnx")
    plans = []
    for capabilities in (ADA, ADA, ("8.6", "8.9", "12.0"), ()):
        built(model, BuildOptions(batch_sizes=(8,), compute_capabilities=capabilities))
        plans.append(model.with_suffix(".plan").read_bytes())
    assert plans[0] == plans[1]
    assert len(plans[0]) < len(plans[2])
    header = read_header(model.with_suffix(".plan"))
    assert header is not None and "8.9" in header.targets and "12.0" in header.targets


@pytest.mark.usefixtures("rtx")
def test_half_precision_keeps_inputs_and_outputs(tmp_path: Path) -> None:
    model = light_models.with_batches("light_squeezenet", tmp_path / "model.onnx")
    whole = built(model, BuildOptions(compute_capabilities=ADA))
    half = built(model, BuildOptions(precision=Precision.FP16, compute_capabilities=ADA))
    assert half.size_bytes < whole.size_bytes
    assert '"fp16"' in half.facts.options


def unsupported(folder: Path) -> Path:
    node = models.node("NonZero", "x", "y", name="where")
    x, y = (
        models.tensor("x", DType.FP32, ("batch", 4)),
        models.tensor("y", DType.INT64, (2, "n")),
    )
    return models.save(folder / "model.onnx", [node], [x], [y])


def named(optimum: str = "", minimum: str = "", maximum: str = "") -> BuildOptions:
    shapes = (parse_shapes([text]) if text else () for text in (minimum, optimum, maximum))
    return BuildOptions(wishes=ShapeWishes(*shapes))


@pytest.mark.usefixtures("rtx")
@pytest.mark.parametrize(
    ("write", "options", "words"),
    [
        (unsupported, BuildOptions(), ("operator NonZero", "'where'", "not supported")),
        (
            lambda f: models.identity(f / "model.onnx", shape=("batch", "n")),
            BuildOptions(),
            ("'x'", "dimension 1"),
        ),
        (lambda f: models.affine(f / "model.onnx"), named("image:1x4"), ("'image'", "no input", "'x'")),
        (
            lambda f: models.affine(f / "model.onnx"),
            named(minimum="x:9x4", optimum="x:8x4", maximum="x:8x4"),
            ("'x'", "9x4", "8x4"),
        ),
        (lambda f: models.affine(f / "model.onnx"), named("x:1x5"), ("'x'", "?x4", "1x5")),
        (
            lambda f: models.affine(f / "model.onnx"),
            BuildOptions(compute_capabilities=("9.0",)),
            ("'9.0'", "8.9", "12.0"),
        ),
        (
            lambda f: models.affine(f / "model.onnx"),
            BuildOptions(hardware_compatibility=HardwareCompatibility.AMPERE_PLUS),
            ("ampere_plus", "compute capability"),
        ),
        (
            lambda f: models.affine(f / "model.onnx"),
            BuildOptions(precision=Precision.INT8),
            ("QuantizeLinear",),
        ),
        (lambda f: models.affine(f / "model.onnx"), BuildOptions(precision=Precision.BF16), ("bf16", "fp16")),
        (lambda f: broken(f / "model.onnx"), BuildOptions(), ("parse",)),
    ],
)
def test_what_cannot_be_built_is_said_in_one_line(
    write: models.Writer, options: BuildOptions, words: tuple[str, ...], tmp_path: Path
) -> None:
    model = write(tmp_path)
    with pytest.raises(BuildError) as caught:
        built(model, options)
    assert all(word in str(caught.value) for word in words), caught.value
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == [model]


def broken(path: Path) -> Path:
    path.write_bytes(b"no model")
    return path


# With a fake ------------------------------------------------------------------------------------------------------

GPU = GpuIdentity("NVIDIA L4", "8.9", "13.0")


def fake_built(
    fake: FakeBuilderModule,
    options: BuildOptions,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    **more: object,
) -> Built:
    monkeypatch.setattr(building_module, "_gpu", lambda: GPU)
    request = request_for(folder / "model.onnx", options, device=0, **more)
    return build_plan(request, fake.bindings, _unheard)


@pytest.mark.parametrize("make", [tensorrt_8_6, tensorrt_10, tensorrt_11])
def test_fp32_is_exact_and_tf32_is_not(
    make: Callable[..., FakeBuilderModule], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = make()
    result = fake_built(fake, BuildOptions(batch_sizes=(4,), workspace_bytes=7), tmp_path, monkeypatch)
    fake_built(fake, BuildOptions(precision=Precision.TF32, sparse=True), tmp_path, monkeypatch)
    exact, fast = fake.configs
    assert (exact.flags, fast.flags) == (set(), {"TF32", "SPARSE_WEIGHTS"})
    assert exact.limits == {"workspace": 7}
    assert exact.profiles == [{"x": ((1, 4), (4, 4), (4, 4))}]
    assert (tmp_path / "model.plan").read_bytes() == PLAN
    assert (result.facts.gpu, result.facts.compute_capability) == ("NVIDIA L4", "8.9")


def test_flags_choose_the_precision_where_there_are_flags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for make, network_flags in ((tensorrt_8_6, 1), (tensorrt_10, 1)):
        fake = make()
        fake_built(fake, BuildOptions(precision=Precision.FP16), tmp_path, monkeypatch)
        assert fake.configs[0].flags == {"FP16", "TF32"}
        assert fake.network_flags == [network_flags]
    strong = tensorrt_10()
    fake_built(strong, BuildOptions(), tmp_path, monkeypatch)
    # Strong types, so that a model in FP16 stays one.
    assert strong.network_flags == [2]
    with pytest.raises(BuildError, match="does not build in bf16"):
        fake_built(tensorrt_8_6(), BuildOptions(precision=Precision.BF16), tmp_path, monkeypatch)


def test_without_flags_the_model_must_have_the_precision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = tensorrt_11(layers=[("convolution", "half")])
    fake_built(half, BuildOptions(precision=Precision.FP16), tmp_path, monkeypatch)
    assert len(half.network_flags) == 1
    brain = tensorrt_11(layers=[("convolution", "bf16")])
    fake_built(brain, BuildOptions(precision=Precision.BF16), tmp_path, monkeypatch)
    with pytest.raises(BuildError, match="does not compute in bf16"):
        fake_built(tensorrt_11(), BuildOptions(precision=Precision.BF16), tmp_path, monkeypatch)


@pytest.mark.parametrize("make", [tensorrt_8_6, tensorrt_10, tensorrt_11])
def test_int8_needs_a_quantized_model(
    make: Callable[..., FakeBuilderModule], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = make(layers=[("quantize", "int8"), ("convolution", "float")])
    fake_built(fake, BuildOptions(precision=Precision.INT8), tmp_path, monkeypatch)
    assert ("INT8" in fake.configs[0].flags) == (make is not tensorrt_11)
    with pytest.raises(BuildError, match="QuantizeLinear"):
        fake_built(make(), BuildOptions(precision=Precision.INT8), tmp_path, monkeypatch)


def test_compatibility_and_what_is_not_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tensorrt_10()
    wide = BuildOptions(
        hardware_compatibility=HardwareCompatibility.AMPERE_PLUS, version_compatible=True, batch_sizes=(2,)
    )
    result = fake_built(fake, wide, tmp_path, monkeypatch)
    assert fake.configs[0].flags == {"VERSION_COMPATIBLE"}
    assert vars(fake.configs[0])["hardware_compatibility_level"] == "ampere_plus"
    assert (result.facts.version_compatible, result.facts.hardware_compatibility) == (True, "ampere_plus")
    narrow = HardwareCompatibility.SAME_COMPUTE_CAPABILITY
    with pytest.raises(BuildError, match="no hardware compatibility same_compute_capability"):
        fake_built(fake, BuildOptions(hardware_compatibility=narrow), tmp_path, monkeypatch)
    with pytest.raises(BuildError, match="only TensorRT-RTX can be told"):
        fake_built(fake, BuildOptions(compute_capabilities=ADA), tmp_path, monkeypatch)


def test_a_failure_is_what_tensorrt_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tensorrt_10(failure="[builder.cpp::run::12] Error Code 10: Internal Error (no implementation)")
    with pytest.raises(BuildError, match="no implementation"):
        fake_built(fake, BuildOptions(), tmp_path, monkeypatch)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("known", [b"", b"before", b"damaged"])
def test_what_was_measured_is_taken_and_kept(
    known: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    if known:
        old.write_bytes(known)
    more = {"timing_cache": str(old), "new_timing_cache": str(new)}
    fake_built(tensorrt_10(), BuildOptions(), tmp_path, monkeypatch, **more)
    assert new.read_bytes() == known.replace(b"damaged", b"") + b"measured"


def test_options_and_requests_survive_the_way_to_the_builder() -> None:
    options = BuildOptions(
        Precision.INT8,
        ShapeWishes(*(parse_shapes(["x:1x2,y:3"]) for _ in range(3))),
        (1, 8),
        2**30,
        version_compatible=True,
        hardware_compatibility=HardwareCompatibility.AMPERE_PLUS,
        sparse=True,
        compute_capabilities=ADA,
        flavour="tensorrt_rtx",
    )
    assert BuildOptions.from_json(options.to_json()) == options
    request = request_for(Path("/a/model.onnx"), options, declared={"x": (-1, 2)}, device=1)
    assert BuildRequest.from_json(request.to_json()) == request
