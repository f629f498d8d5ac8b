"""`predictd build`: the options of the command line over those of the model's own file, and clear refusals."""

import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from predictd.engines.tensorrt import building, plan_cache
from predictd.engines.tensorrt.bindings import FLAVOURS
from predictd.engines.tensorrt.build_options import BuildOptions, HardwareCompatibility, Precision
from predictd.engines.tensorrt.gpu_identity import GpuIdentity
from predictd.engines.tensorrt.plan_cache import PlanWish
from predictd.engines.tensorrt.plan_file import read_facts
from predictd.server.cli.build import BINDINGS, COMPATIBILITIES, PRECISIONS
from predictd.server.cli.main import predictd
from tests.fakes.trt_builder import tensorrt_10
from tests.fixtures import models, scripted_builder
from tests.fixtures.daemon import REPOSITORY


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model folder, and a TensorRT that builds what a script says."""
    fake = tensorrt_10().bindings
    monkeypatch.setattr("predictd.engines.tensorrt.bindings.load_bindings", lambda _name=None: fake)
    monkeypatch.setattr(
        plan_cache,
        "plan_wish",
        lambda path, options, declared, _bindings, device, timings=None: PlanWish(
            path,
            options,
            {spec.name: spec.shape for spec in declared},
            device,
            GpuIdentity("L4", "8.9", "13.0"),
            timings,
        ),
    )
    monkeypatch.setattr(building, "_MODULE", scripted_builder.__name__)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((os.environ.get("PYTHONPATH", ""), str(REPOSITORY))))
    monkeypatch.setenv("PREDICTD_CACHE_DIR", str(tmp_path / "cache"))
    folder = tmp_path / "net"
    (folder / "1").mkdir(parents=True)
    models.affine(folder / "1" / "model.onnx")
    return folder


def run(*arguments: object) -> Result:
    return CliRunner().invoke(predictd, ["build", *map(str, arguments)])


def options_of(plan: Path) -> BuildOptions:
    facts = read_facts(plan)
    assert facts is not None
    return BuildOptions.from_json(facts.options)


def test_the_choices_are_those_of_the_engine() -> None:
    assert tuple(Precision) == PRECISIONS
    assert tuple(HardwareCompatibility) == COMPATIBILITIES
    assert BINDINGS == FLAVOURS


def test_what_serve_would_build_is_built_and_kept(model: Path, tmp_path: Path) -> None:
    (model / "model.toml").write_text(
        'max_batch_size = 16\npreferred_batch_sizes = [4]\n[parameters]\nprecision = "fp16"\n'
    )
    plan = tmp_path / "out.plan"
    result = run(model, "-o", plan)
    assert result.exit_code == 0, result.output
    assert "out.plan: 0.0 MiB, built by TensorRT 10.9.0.34" in result.output
    assert plan.read_bytes() == scripted_builder.PLAN
    assert options_of(plan) == BuildOptions(precision=Precision.FP16, batch_sizes=(4, 16))
    assert list((tmp_path / "cache" / "tensorrt").glob("*/model.plan"))
    above = run(
        *(model, "-o", plan, "--precision", "tf32", "--batch-size", "8", "--batch-size", "2"),
        *("--opt", "x:2x4", "--workspace", "1GiB", "--sparse", "--version-compatible"),
        *("--hardware-compatibility", "ampere_plus", "--timing-cache", tmp_path / "timings"),
    )
    assert above.exit_code == 0, above.output
    options = options_of(plan)
    assert (options.precision, options.batch_sizes, options.workspace_bytes) == ("tf32", (2, 8), 2**30)
    assert (options.sparse, options.version_compatible) == (True, True)
    assert options.hardware_compatibility is HardwareCompatibility.AMPERE_PLUS
    assert options.wishes.optimum == (("x", (2, 4)),)
    assert (tmp_path / "timings").read_bytes() == b"measured"


def test_what_is_wrong_is_one_line(model: Path, tmp_path: Path) -> None:
    file, plan = model / "1" / "model.onnx", tmp_path / "out.plan"
    killed, content = models.affine(tmp_path / "killed.onnx"), file.read_bytes()
    text = tmp_path / "text.txt"
    text.write_text("no model")
    for arguments, words in (
        ((file, "-o", plan, "--opt", "x"), ("--min, --opt and --max", "'x'")),
        ((file, "-o", plan, "--workspace", "1G"), ("--workspace", "1G")),
        ((killed, "-o", plan), ("killed.onnx", "too little memory")),
        ((text, "-o", plan), ("text.txt",)),
        ((file, "-o", tmp_path / "nowhere" / "out.plan"), ("nowhere: no such folder",)),
        ((file, "-o", file), ("model.onnx: a plan is a .plan or .engine file",)),
    ):
        result = run(*arguments)
        assert result.exit_code != 0
        assert all(word in result.output for word in words), (arguments, result)
        assert not plan.exists()
        assert file.read_bytes() == content
    (model / "model.toml").write_text('[parameters]\nprecision = "fp8"\n')
    assert "parameter 'precision': 'fp8'" in run(model, "-o", plan).output
