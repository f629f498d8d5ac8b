"""External data: found without loading anything, and part of what a model is."""

from __future__ import annotations

import os
from pathlib import Path

import onnx
import pytest
from onnx import helper

from predictd.engines.api import DType, EngineOptions, ModelLoadError
from predictd.engines.onnx_external import ExternalFile, external_files
from predictd.engines.onnxruntime import load
from predictd.server.repository.check import check
from predictd.server.repository.external_data import check_external_data
from predictd.server.repository.file_error import ModelFileError
from predictd.server.repository.watch import decide, look
from tests.fixtures import models
from tests.fixtures.external import external, external_table

NOW = 1_000_000_000.0
OLD = NOW - 60
FILES = ("weights.bin", "parts/a.bin", "parts/b.bin")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "models" / "m" / "1" / "model.onnx"
    path.parent.mkdir(parents=True)
    external(path, 2.0, *FILES)
    age(path.parent)
    return path


def age(folder: Path, when: float = OLD) -> None:
    for file in folder.rglob("*"):
        os.utime(file, (when, when))


def wrong(path: Path) -> str:
    with pytest.raises(ModelFileError) as caught:
        check_external_data(path)
    return str(caught.value)


def refused(path: Path) -> str:
    with pytest.raises(ModelLoadError) as caught:
        load(path, EngineOptions())
    message = str(caught.value)
    assert "\n" not in message
    assert ".cc" not in message
    return message.removeprefix(f"{path}: ")


# The walk -----------------------------------------------------------------------------------------------------


def test_every_file_is_found_once_with_what_it_must_hold(model: Path) -> None:
    assert external_files(model) == tuple(ExternalFile(name, 64) for name in sorted(FILES))
    check_external_data(model)


def test_a_model_without_external_data_has_none(tmp_path: Path) -> None:
    assert external_files(models.mlp(tmp_path / "m.onnx")) == ()


def test_tensors_in_branches_and_constants_are_found_too(tmp_path: Path) -> None:
    def constant(name: str, location: str) -> onnx.NodeProto:
        return helper.make_node("Constant", [], [name], value=external_table("t", location, 4))

    out = models.tensor("z", DType.FP32, (4, 4))
    branches = [
        helper.make_graph([constant("z", f"{name}.bin")], name, [], [out]) for name in ("then", "else")
    ]
    nodes = [
        helper.make_node("If", ["c"], ["y"], then_branch=branches[0], else_branch=branches[1]),
        constant("unused", "constant.bin"),
    ]
    graph = [models.tensor("c", DType.BOOL, ())], [models.tensor("y", DType.FP32, (4, 4))]
    path = models.save(tmp_path / "m.onnx", nodes, *graph)
    assert [file.location for file in external_files(path)] == ["constant.bin", "else.bin", "then.bin"]


def test_a_file_cut_anywhere_is_no_trouble(model: Path) -> None:
    whole = model.read_bytes()
    for size in range(len(whole)):
        model.write_bytes(whole[:size])
        assert {file.location for file in external_files(model)} <= set(FILES)


def test_nothing_is_followed_without_end(tmp_path: Path) -> None:
    inner = external(tmp_path / "inner.onnx", 2.0, "w.bin").read_bytes()
    graph = onnx.ModelProto.FromString(inner).graph.SerializeToString()
    path = tmp_path / "m.onnx"
    depths = []
    for _ in range(60):
        path.write_bytes(field(7, graph))
        depths.append(len(external_files(path)))
        # A graph in an attribute of a node of a graph.
        graph = field(1, field(5, field(6, graph)))
        path.unlink()
    assert (depths[0], depths[5], depths[-1]) == (1, 1, 0)
    # A hole in a file reads as zeros, which no field begins with.
    with path.open("wb") as file:
        file.write(b"\x3a\xff\xff\xff\xff\x07")
        file.truncate(2**31)
    assert external_files(path) == ()


def field(number: int, content: bytes) -> bytes:
    """A field of a protobuf message that holds another one."""
    size, encoded = len(content), b""
    while size > 0x7F:
        encoded += bytes([size & 0x7F | 0x80])
        size >>= 7
    return bytes([number << 3 | 2]) + encoded + bytes([size]) + content


# What is wrong with it ----------------------------------------------------------------------------------------


def test_a_missing_file_is_named_by_the_watch_the_check_and_the_engine(model: Path) -> None:
    (model.parent / "parts" / "b.bin").unlink()
    message = "external data 'parts/b.bin' cannot be used: no such file or directory"
    assert wrong(model) == f"{message}: put it beside the model"
    assert (
        look([model.parents[2]], NOW).versions["m", 1].broken
        == f"{model}: {message}: put it beside the model"
    )
    (finding,) = check([model.parents[2]])
    assert (finding.severity, finding.message) == ("error", message)
    assert "parts/b.bin" in refused(model)


def test_a_file_cut_short_is_named(model: Path) -> None:
    os.truncate(model.parent / "weights.bin", 20)
    assert wrong(model) == (
        "external data 'weights.bin' is cut short: 20 of at least 64 bytes are there: copy it again"
    )
    assert "table0" in refused(model)


@pytest.mark.parametrize("location", ["../secret.bin", "parts/../../secret.bin", "/dev/zero"])
def test_a_path_out_of_the_folder_is_refused(model: Path, location: str) -> None:
    external(model, 2.0, location, write=False)
    (model.parents[1] / "secret.bin").write_bytes(bytes(64))
    assert (
        wrong(model)
        == f"external data {location!r} is outside of the model's folder: put it beside the model"
    )
    assert "External data path" in refused(model)
    assert [file.outside for file in external_files(model)] == [True]


def test_a_link_out_of_the_folder_is_refused_by_the_engine(model: Path) -> None:
    external(model, 2.0, "link.bin", write=False)
    secret = model.parents[1] / "secret.bin"
    secret.write_bytes(bytes(64))
    (model.parent / "link.bin").symlink_to(secret)
    assert "link.bin" in refused(model)
    assert "escapes" in refused(model)


# Watching -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_an_external_file_is_part_of_the_content(model: Path, name: str) -> None:
    root, file = model.parents[2], model.parent / name
    seen = [look([root], NOW).versions["m", 1]]
    os.utime(file, (OLD + 1, OLD + 1))
    seen.append(look([root], NOW).versions["m", 1])
    file.unlink()
    seen.append(look([root], NOW).versions["m", 1])
    assert len({one.fingerprint for one in seen}) == 3
    assert [one.settled for one in seen] == [True, True, False]
    assert look([root], NOW).versions["m", 1].fingerprint == seen[2].fingerprint, "absence is a state, too"


def test_of_a_model_without_versions_its_files_count_as_well(tmp_path: Path) -> None:
    path = external(tmp_path / "m.onnx", 2.0, "m.data")
    seen = [look([path], NOW).versions["m", 1].fingerprint]
    os.utime(tmp_path / "m.data", (OLD, OLD))
    seen.append(look([path], NOW).versions["m", 1].fingerprint)
    assert len(set(seen)) == 2


def test_weights_that_are_copied_slowly_after_the_model_are_waited_for(model: Path) -> None:
    root = model.parents[2]
    before = look([root], NOW)
    serving = {key: one.fingerprint for key, one in before.versions.items()}
    new = root / "m" / "2" / "model.onnx"
    new.parent.mkdir()
    external(new, 3.0, *FILES, write=False)
    now, wanted = NOW, []
    steps = [(name, size) for name in FILES for size in (0, 30, 64)]
    for name, size in steps:
        target = new.parent / name
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(bytes(size))
        now += 10
        age(new.parent, now - 5)
        for _ in range(2):
            sight = look([root], now)
            versions = [one.version for one in decide(before, sight, serving).wanted["m"].contents]
            wanted.append(versions)
            before = sight
    assert wanted == [[1]] * (2 * len(steps) - 1) + [[2]]
