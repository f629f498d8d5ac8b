"""Sessions that map their weights from the cache compute what all others do, and nothing there can spoil them."""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from predictd.engines.api import Array, DType, EngineOptions, LoadCancelledError, ModelLoadError
from predictd.engines.cache import MANIFEST, CacheFolder
from predictd.engines.cancellation import Cancellation
from predictd.engines.model_files import ModelFiles, model_files
from predictd.engines.onnxruntime import load, prepacked
from predictd.engines.onnxruntime.session import create_session
from tests.fixtures import models
from tests.fixtures.daemon import REPOSITORY

ROWS = 3

# Loads a model where no file may be longer than 1 MB.
SHORT_OF_SPACE = """\
import logging, resource, signal, sys
from pathlib import Path
import numpy as np
from predictd.engines.api import EngineOptions
from predictd.engines.cache import CacheFolder
from predictd.engines.onnxruntime import load, prepacked

logging.basicConfig(stream=sys.stdout, format="%(message)s")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
prepacked.SHARED_BYTES_MIN = 0
options = EngineOptions(instances=2, cache=CacheFolder(Path(sys.argv[2]), 1 << 30))
engine = load(Path(sys.argv[1]), options)
print("runs", engine.run([np.zeros((1, 1024), np.float32)])[0].shape)
"""


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EngineOptions:
    """Options of one of two workers, for which no model is too small."""
    monkeypatch.setattr(prepacked, "SHARED_BYTES_MIN", 0)
    return EngineOptions(instances=2, cache=CacheFolder(tmp_path / "cache", 2**30))


def entries(options: EngineOptions) -> list[Path]:
    assert options.cache is not None
    return sorted(path.parent for path in options.cache.directory.glob(f"{prepacked.KIND}/*/{MANIFEST}"))


def the_entry(options: EngineOptions) -> Path:
    (entry,) = entries(options)
    return entry


def inputs_of(engine: Any) -> list[Array]:
    random = np.random.default_rng(1)
    inputs = []
    for spec in engine.signature.inputs:
        shape = [size if size > 0 else ROWS if axis == 0 else 16 for axis, size in enumerate(spec.shape)]
        if spec.dtype is DType.INT64:
            inputs.append(random.integers(0, 500, shape))
        else:
            inputs.append(random.standard_normal(shape).astype(spec.dtype.numpy))
    return inputs


def answers(path: Path, options: EngineOptions) -> list[Array]:
    engine = load(path, options)
    return engine.run(inputs_of(engine))


def mapped(path: Path) -> bool:
    """Whether this process has a file mapped."""
    return str(path) in Path("/proc/self/maps").read_text()


def external(path: Path, location: str) -> Path:
    """A model with all its weights in another file."""
    model = onnx.load(models.mlp(path.with_suffix(".whole"), width=256))
    onnx.save(model, path, save_as_external_data=True, location=location, size_threshold=0)
    return path


@pytest.mark.parametrize(
    "build",
    [
        models.resnet50,
        lambda path: models.transformer(path, width=128, layers=3),
        lambda path: models.mlp(path, width=256),
        lambda path: models.large_weights(path, mb=2),
        lambda path: external(path, "weights"),
    ],
    ids=["convolutions", "transformer", "dense layers", "matrix", "external data"],
)
def test_the_answers_are_the_same_bit_for_bit(
    tmp_path: Path, shared: EngineOptions, build: Callable[[Path], Path]
) -> None:
    path = build(tmp_path / "m.onnx")
    plain, first, second = load(path, EngineOptions()), load(path, shared), load(path, shared)
    assert mapped(the_entry(shared) / "weights.bin")
    assert plain.signature == first.signature == second.signature
    inputs = inputs_of(plain)
    for expected, *others in zip(plain.run(inputs), first.run(inputs), second.run(inputs), strict=True):
        for other in others:
            np.testing.assert_array_equal(expected, other)


@pytest.mark.parametrize("level", ["disabled", "basic", "extended", "all"])
def test_every_optimization_level_has_an_entry_of_its_own(
    tmp_path: Path, shared: EngineOptions, level: str
) -> None:
    path = models.transformer(tmp_path / "m.onnx", width=128)
    parameters = {"graph_optimization_level": level}
    answers(path, shared)
    np.testing.assert_array_equal(
        answers(path, EngineOptions(parameters=parameters))[0],
        answers(path, EngineOptions(instances=2, cache=shared.cache, parameters=parameters))[0],
    )
    assert len(entries(shared)) == (1 if level == "all" else 2)


def test_inputs_with_a_default_stay_optional(tmp_path: Path, shared: EngineOptions) -> None:
    path = models.optional_input(tmp_path / "m.onnx", shape=(1, 8192))
    assert load(path, shared).signature == load(path, EngineOptions()).signature
    assert load(path, shared).signature.inputs[-1].optional


@pytest.mark.parametrize(
    "change",
    [
        {"instances": 1},
        {"cache": None},
        {"parameters": {"share_weights": "false"}},
    ],
    ids=["one worker", "no cache", "not wanted"],
)
def test_nothing_is_kept_where_nobody_shares(
    tmp_path: Path, shared: EngineOptions, change: dict[str, Any]
) -> None:
    path = models.mlp(tmp_path / "m.onnx", width=256)
    options = EngineOptions(**{"instances": 2, "cache": shared.cache, **change})
    assert answers(path, options)[0].shape == (ROWS, 256)
    assert entries(shared) == []


def test_small_models_are_not_shared(tmp_path: Path) -> None:
    options = EngineOptions(instances=2, cache=CacheFolder(tmp_path / "cache", 2**30))
    load(models.mlp(tmp_path / "m.onnx", width=256), options)
    assert entries(options) == []


@pytest.mark.parametrize("text", ["maybe", "True", ""])
def test_share_weights_is_true_or_false(tmp_path: Path, text: str) -> None:
    path = models.affine(tmp_path / "m.onnx")
    with pytest.raises(ModelLoadError, match="'share_weights' must be one of true, false"):
        load(path, EngineOptions(parameters={"share_weights": text}))


# What the key says ------------------------------------------------------------------------------------------------


def test_a_copy_of_the_model_shares_the_entry(tmp_path: Path, shared: EngineOptions) -> None:
    load(models.mlp(tmp_path / "a.onnx", width=256), shared)
    (tmp_path / "b.onnx").write_bytes((tmp_path / "a.onnx").read_bytes())
    load(tmp_path / "b.onnx", shared)
    assert len(entries(shared)) == 1


def test_another_content_is_another_entry(tmp_path: Path, shared: EngineOptions) -> None:
    path = models.mlp(tmp_path / "m.onnx", width=256, seed=1)
    load(path, shared)
    models.mlp(path, width=256, seed=2)
    np.testing.assert_array_equal(answers(path, shared)[0], answers(path, EngineOptions())[0])
    assert len(entries(shared)) == 2


def test_another_content_of_external_data_is_another_entry(tmp_path: Path, shared: EngineOptions) -> None:
    path = external(tmp_path / "m.onnx", "weights")
    before = answers(path, shared)[0]
    weights = np.fromfile(tmp_path / "weights", np.float32)
    (weights * np.float32(0.5)).tofile(tmp_path / "weights")
    after = answers(path, shared)[0]
    np.testing.assert_array_equal(after, answers(path, EngineOptions())[0])
    assert not np.array_equal(before, after)
    assert len(entries(shared)) == 2


@pytest.mark.parametrize("name", ["cpu_fingerprint", "onnxruntime.get_build_info"])
def test_another_cpu_or_build_is_another_entry(
    tmp_path: Path, shared: EngineOptions, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = models.mlp(tmp_path / "m.onnx", width=256)
    load(path, shared)
    monkeypatch.setattr(f"{prepacked.__name__}.{name}", lambda: "another")
    load(path, shared)
    assert len(entries(shared)) == 2


def test_a_model_that_changes_while_it_is_loaded_is_not_kept(
    tmp_path: Path, shared: EngineOptions, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = models.mlp(tmp_path / "m.onnx", width=256)
    monkeypatch.setattr(ModelFiles, "unchanged", lambda _: False)
    assert answers(path, shared)[0].shape == (ROWS, 256)
    assert f"{path} changed while it was loaded" in caplog.text
    assert entries(shared) == []


# Which files a model has ------------------------------------------------------------------------------------------


def test_external_data_is_found_wherever_a_tensor_can_be(tmp_path: Path) -> None:
    def elsewhere(name: str) -> Any:
        (tmp_path / name).write_bytes(bytes(16))
        tensor = onnx.TensorProto(name=name, data_type=onnx.TensorProto.FLOAT, dims=[4])
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="offset", value="0")
        tensor.external_data.add(key="location", value=name)
        return tensor

    branch = onnx.helper.make_graph([], "branch", [], [], [elsewhere("in a subgraph")])
    constant = onnx.helper.make_node("Constant", [], ["c"], value=elsewhere("in an attribute"))
    choice = onnx.helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch)
    sparse = onnx.SparseTensorProto(values=elsewhere("sparse"), dims=[4])
    graph = onnx.helper.make_graph([constant, choice], "g", [], [], [elsewhere("plain"), elsewhere("plain")])
    graph.sparse_initializer.append(sparse)
    inner = onnx.helper.make_node("Constant", [], ["d"], value=elsewhere("in a function"))
    function = onnx.helper.make_function("d", "f", [], ["d"], [inner], [])
    model = onnx.helper.make_model(graph, functions=[function])
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())

    files = model_files(path)
    names = ["in a function", "in a subgraph", "in an attribute", "plain", "sparse"]
    assert [file.name for file in files.paths] == ["m.onnx", *names]
    assert files.size_bytes == path.stat().st_size + 5 * 16


def test_files_that_changed_are_noticed(tmp_path: Path) -> None:
    path = external(tmp_path / "m.onnx", "weights")
    files = model_files(path)
    assert files.unchanged()
    os.utime(tmp_path / "weights", (1, 1))
    assert not files.unchanged()
    (tmp_path / "weights").unlink()
    assert not files.unchanged()


@pytest.mark.parametrize("content", [b"", b"\xff" * 40, b"no model at all", b"\x3a\x7f"])
def test_what_is_no_model_is_refused_as_always(tmp_path: Path, shared: EngineOptions, content: bytes) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelLoadError) as plain:
        load(path, EngineOptions())
    with pytest.raises(ModelLoadError) as other:
        load(path, shared)
    assert str(other.value) == str(plain.value)
    assert entries(shared) == []


def test_a_device_as_external_data_is_not_read(tmp_path: Path, shared: EngineOptions) -> None:
    path = external(tmp_path / "m.onnx", "weights")
    (tmp_path / "weights").unlink()
    (tmp_path / "weights").symlink_to("/dev/zero")
    with pytest.raises(ModelLoadError, match=r"m\.onnx"):
        load(path, shared)


# What goes wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["model.onnx", "weights.bin", MANIFEST])
@pytest.mark.parametrize("length", [0, 100])
def test_a_truncated_entry_is_made_again(
    tmp_path: Path, shared: EngineOptions, file: str, length: int
) -> None:
    path = models.mlp(tmp_path / "m.onnx", width=256)
    expected = answers(path, shared)[0]
    broken = the_entry(shared) / file
    size = broken.stat().st_size
    os.truncate(broken, length)
    np.testing.assert_array_equal(answers(path, shared)[0], expected)
    assert (the_entry(shared) / file).stat().st_size == size


def test_an_entry_that_cannot_be_loaded_is_made_again_once(
    tmp_path: Path, shared: EngineOptions, caplog: pytest.LogCaptureFixture
) -> None:
    path = models.mlp(tmp_path / "m.onnx", width=256)
    expected = answers(path, shared)[0]
    entry = the_entry(shared)
    (entry / "model.onnx").write_bytes(b"no model")
    status = (entry / "model.onnx").stat()
    manifest = json.loads((entry / MANIFEST).read_text())
    manifest["files"]["model.onnx"] = [status.st_size, status.st_mtime_ns]
    (entry / MANIFEST).write_text(json.dumps(manifest))
    np.testing.assert_array_equal(answers(path, shared)[0], expected)
    (message,) = caplog.messages
    assert message.startswith(f"removing cache entry {entry}: ")
    assert (entry / "model.onnx").stat().st_size > 100


def test_what_can_never_be_loaded_is_loaded_without(
    tmp_path: Path, shared: EngineOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = models.mlp(tmp_path / "m.onnx", width=256)
    tried = []

    def refuse(file: Path, settings: Any, cancel: Cancellation) -> Any:
        tried.append(file.name)
        if file.name == "model.onnx":
            raise ModelLoadError("refused")
        return create_session(file, settings, cancel)

    monkeypatch.setattr(prepacked, "create_session", refuse)
    assert answers(path, shared)[0].shape == (ROWS, 256)
    assert tried == ["m.onnx", "model.onnx"] * 2
    assert entries(shared) == []


def test_a_full_disk_costs_a_warning(tmp_path: Path) -> None:
    path = models.mlp(tmp_path / "m.onnx", width=1024, layers=2)
    done = subprocess.run(
        [sys.executable, "-c", SHORT_OF_SPACE, str(path), str(tmp_path / "cache")],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd=REPOSITORY,
    )
    warning, result = done.stdout.splitlines()
    assert warning.startswith(f"going on without cache entry {tmp_path / 'cache' / 'onnxruntime'}")
    assert result == "runs (1, 1024)"
    assert list((tmp_path / "cache" / "onnxruntime").iterdir()) == []


def test_what_will_not_fit_is_not_begun(
    tmp_path: Path, shared: EngineOptions, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = models.mlp(tmp_path / "m.onnx", width=256)
    small = EngineOptions(instances=2, cache=CacheFolder(tmp_path / "cache", 2**20))
    assert answers(path, small)[0].shape == (ROWS, 256)
    needed = 2 * path.stat().st_size
    assert f"its {needed} bytes are more than the cache's limit, 1048576" in caplog.text
    caplog.clear()
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    assert answers(path, shared)[0].shape == (ROWS, 256)
    assert f"it needs {needed} bytes, and 1000 are free" in caplog.text
    assert entries(shared) == []


def test_nothing_is_printed(tmp_path: Path, shared: EngineOptions, capfd: pytest.CaptureFixture[str]) -> None:
    load(models.transformer(tmp_path / "m.onnx"), shared)
    assert capfd.readouterr() == ("", "")


def test_a_load_that_is_given_up_makes_no_entry_and_spoils_none(
    tmp_path: Path, shared: EngineOptions
) -> None:
    path = models.mlp(tmp_path / "m.onnx", width=256)
    given_up = Cancellation()
    given_up.set()
    for made in (0, 1):
        with pytest.raises(LoadCancelledError):
            load(path, dataclasses.replace(shared, cancel=given_up))
        assert len(entries(shared)) == made
        answers(path, shared)
