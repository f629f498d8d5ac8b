import subprocess
import sys
from pathlib import Path

import pytest

from predictd.engines import registry, traits
from predictd.engines.api import EngineOptions, ModelLoadError
from predictd.engines.traits import BUILT_IN, Threading, engine_traits
from tests.fixtures import models


def test_built_in_engine_loads_a_model(tmp_path: Path) -> None:
    load = registry.resolve("onnxruntime")
    engine = load(models.affine(tmp_path / "m.onnx"), EngineOptions())
    assert engine.name == "onnxruntime"


def test_plug_in_is_found_by_module_and_function() -> None:
    load = registry.resolve("tests.fixtures.faulty_engine:load")
    assert load(Path("anything"), EngineOptions()).name == "faulty"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "tensorflow",
            f"unknown engine 'tensorflow'; known: {', '.join(BUILT_IN)}, or write package.module:function",
        ),
        ("", "unknown engine ''"),
        (":load", "unknown engine ':load'"),
        ("json:", "unknown engine 'json:'"),
        ("no.such.module:load", "engine 'no.such.module:load' cannot be imported: No module named 'no'"),
        ("json:no_such", "engine 'json:no_such': json has no function 'no_such'"),
        ("json:__name__", "engine 'json:__name__': json has no function '__name__'"),
    ],
)
def test_bad_names_are_refused(name: str, message: str) -> None:
    with pytest.raises(ModelLoadError) as caught:
        registry.resolve(name)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("suffix", "engine"),
    [
        (".onnx", "onnxruntime"),
        (".ONNX", "onnxruntime"),
        (".xml", "openvino"),
        ("", None),
        (".plan", "tensorrt"),
        (".bin", None),
        (".pt", "torch"),
        (".pt2", "torch"),
    ],
)
def test_engine_by_suffix(suffix: str, engine: str | None) -> None:
    assert traits.engine_for_suffix(suffix) == engine


def test_no_runtime_is_imported_before_it_is_resolved() -> None:
    code = (
        "import sys; from predictd.engines import registry;"
        "assert 'onnxruntime' not in sys.modules; registry.resolve('onnxruntime');"
        "assert 'onnxruntime' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("suffix", "preferred", "engine"),
    [
        (".onnx", "openvino", "openvino"),
        (".xml", "onnxruntime", "openvino"),
        (".onnx", "auto", "onnxruntime"),
        (".txt", "openvino", None),
    ],
)
def test_an_engine_is_preferred_for_what_it_serves(suffix: str, preferred: str, engine: str | None) -> None:
    assert traits.engine_for_suffix(suffix, preferred) == engine


def test_each_built_in_engine_that_may_be_missing_names_its_extra() -> None:
    code = (
        "import sys; sys.modules['openvino'] = None; from predictd.engines import registry\n"
        "try: registry.resolve('openvino')\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.startswith("ModelLoadError engine 'openvino' cannot be imported: ")
    assert done.stdout.endswith("(pip install 'predictd[openvino]')\n")


def test_a_runtime_that_is_not_installed_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "predictd.engines.torch.engine", raising=False)
    with pytest.raises(
        ModelLoadError, match=r"^engine 'torch' cannot be imported: .*pip install 'predictd\[torch\]'"
    ):
        registry.resolve("torch")


def test_the_environment_matters_to_an_engine_of_openmp() -> None:
    assert engine_traits("torch").threading is Threading.OPENMP
