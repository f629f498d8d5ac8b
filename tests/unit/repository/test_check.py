from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from predictd.engines.traits import BUILT_IN
from predictd.server.cli.check import check as command
from predictd.server.repository.check import Finding, check
from tests.fixtures import models, triton_repositories

CUT = "copy the model again"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with one good model, "m"."""
    (tmp_path / "repository" / "m" / "1").mkdir(parents=True)
    models.affine(tmp_path / "repository" / "m" / "1" / "model.onnx")
    return tmp_path / "repository"


def said(repository: Path) -> list[str]:
    return [str(finding).removeprefix(f"{repository}/") for finding in check([repository])]


def run(*paths: Path) -> Result:
    return CliRunner().invoke(command, [str(path) for path in paths], standalone_mode=False)


def test_a_good_repository_has_no_findings(repository: Path) -> None:
    assert check([repository]) == ()
    result = run(repository)
    assert (result.return_value, result.stdout, result.stderr) == (0, "", "0 errors, 0 warnings\n")


def test_typical_repositories_of_triton_have_none_either(tmp_path: Path) -> None:
    triton_repositories.image_classifier(tmp_path)
    triton_repositories.text_model(tmp_path)
    triton_repositories.two_instances(tmp_path)
    assert check([tmp_path]) == ()


def test_every_problem_of_a_repository_is_found_at_once(repository: Path) -> None:
    for name in ("bad", "toml", "empty"):
        (repository / name / "1").mkdir(parents=True)
    (repository / "bad" / "config.pbtxt").write_text(
        'backend: "onnxruntime"\nmax_batch_sise: 4\ndynamic_batching { preserve_ordering: true }\n'
        "sequence_batching { }\n"
    )
    (repository / "bad" / "1" / "model.onnx").write_bytes(b"")
    (repository / "toml" / "model.toml").write_text('engine = "onnxrutime"\nthreads = 0\n')
    models.affine(repository / "toml" / "1" / "model.onnx")
    assert said(repository) == [
        "bad/1/model.onnx: error: an empty file: copy the model again",
        "bad/config.pbtxt:2: error: unknown field 'max_batch_sise'; did you mean 'max_batch_size'?",
        (
            "bad/config.pbtxt:3: warning: answers are given as they are ready; "
            "a stream keeps the order of its requests"
        ),
        "bad/config.pbtxt:4: error: sequence_batching and dynamic_batching cannot both be there: remove one",
        "bad/config.pbtxt:4: error: state is not kept between requests: let clients send it along",
        "empty/1: error: no model: put model.onnx here",
        (
            "toml/model.toml:1: error: there is no engine 'onnxrutime'; did you mean 'onnxruntime'?: "
            f"known are {', '.join(BUILT_IN)}, or write package.module:function"
        ),
        "toml/model.toml:2: error: threads: 0 is too small: the least is 1",
    ]


def test_a_path_that_is_no_utf_8_is_refused_as_it_would_not_be_served(tmp_path: Path) -> None:
    result = run(tmp_path / "m\udcff.onnx")
    assert str(result.exception).endswith("m\\udcff.onnx' is not UTF-8: rename it")


def test_the_command_prints_them_and_fails_on_errors_alone(repository: Path) -> None:
    config = repository / "m" / "config.pbtxt"
    config.write_text("response_cache { enable: true }\n")
    warning = f"{config}:1: warning: answers are not cached; every request is computed\n"
    result = run(repository)
    assert (result.return_value, result.stdout, result.stderr) == (0, warning, "0 errors, 1 warning\n")
    result = run(repository, repository / "missing")
    error = f"{repository}/missing: error: no such file or folder\n"
    assert (result.return_value, result.stdout, result.stderr) == (1, warning + error, "1 error, 1 warning\n")


@pytest.mark.parametrize(
    ("content", "message", "remedy"),
    [
        (b"", "an empty file", CUT),
        (
            b"version https://git-lfs.github.com/spec/v1\n",
            "a pointer of Git LFS, not the model",
            "git lfs pull",
        ),
        (b"not a model at all", "not an ONNX model", "export the model to ONNX"),
        (b"\x80\x04\x95pickle", "not an ONNX model", "export the model to ONNX"),
        (b"\x08", "cut short after 1 bytes", CUT),
        (b"\x08\x08", "not an ONNX model", "export the model to ONNX"),
        (b"\x08" + b"\xff" * 11, "not an ONNX model", "export the model to ONNX"),
        (b"\x08\x08\x3a\x05abc", "cut short: 7 of at least 9 bytes are there", CUT),
    ],
)
def test_a_file_that_is_no_model(content: bytes, message: str, remedy: str, repository: Path) -> None:
    path = repository / "m" / "1" / "model.onnx"
    path.write_bytes(content)
    (finding,) = check([repository])
    assert (finding.path, finding.severity, finding.message) == (path, "error", message)
    assert remedy in finding.remedy


@pytest.mark.parametrize(
    ("content", "message", "remedy"),
    [
        (b"", "an empty file", CUT),
        (b"<annotation><size/></annotation>", "not an OpenVINO model", "convert the model with ovc"),
        (b"<net/>", "not an OpenVINO model", "convert the model with ovc"),
        (b'<?xml version="1.0"?>\n<net name="m" version="11"><layers>', "cut short after 57 bytes", CUT),
        (b'<net version="11"><data offset="0" size="1"/></net>', "no model.bin beside it", "copy both"),
    ],
)
def test_a_file_that_is_no_model_of_openvino(
    content: bytes, message: str, remedy: str, repository: Path
) -> None:
    (repository / "m" / "1" / "model.onnx").unlink()
    path = repository / "m" / "1" / "model.xml"
    path.write_bytes(content)
    (finding,) = check([repository])
    assert (finding.path, finding.severity, finding.message) == (path, "error", message)
    assert remedy in finding.remedy


def test_a_model_of_openvino_needs_no_weights_that_it_does_not_name(repository: Path) -> None:
    (repository / "m" / "1" / "model.onnx").unlink()
    (repository / "m" / "1" / "model.xml").write_text('<net version="11"><layers/></net>\n')
    assert check([repository]) == ()


def test_a_model_cut_short_anywhere_is_noticed(tmp_path: Path) -> None:
    whole = models.mlp(tmp_path / "whole.onnx").read_bytes()
    path = tmp_path / "cut.onnx"
    passed = []
    for size in range(0, len(whole), max(1, len(whole) // 200)):
        path.write_bytes(whole[:size])
        if not check([path]):
            passed.append(size)
    assert passed == []
    path.write_bytes(whole)
    assert check([path]) == ()


def test_a_large_model_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large.onnx"
    with path.open("wb") as file:
        file.write(b"\x08\x08\x3a" + b"\x80\x80\x80\x80\x20")  # A graph of 8 GiB.
        file.truncate(8 + 2**33)
    assert check([path]) == ()


def test_an_engine_of_the_user_s_own_is_looked_for_and_its_files_are_its_own(repository: Path) -> None:
    (repository / "m" / "1" / "model.onnx").write_bytes(b"weights")
    toml = repository / "m" / "model.toml"
    toml.write_text('engine = "tests.fixtures.faulty_engine:load"')
    assert check([repository]) == ()
    toml.write_text('\nengine = "no_such_package.engine:load"')
    message = "engine 'no_such_package.engine:load': there is no package 'no_such_package'"
    assert check([repository]) == (
        Finding(toml, 2, "error", message, "install it, or add its folder to PYTHONPATH"),
    )


def test_files_that_a_configuration_names_are_looked_for(repository: Path) -> None:
    folder = repository / "m"
    (folder / "model.toml").write_text(
        'warmup = {file = "warm.npz"}\n[outputs.y]\nlabels_file = "labels.txt"\n'
    )
    assert said(repository) == [
        (
            f"m/model.toml:1: error: warm-up: {folder}/warm.npz: no such file or directory: "
            "put it here, or remove the name"
        ),
        (
            f"m/model.toml:2: error: labels file of output 'y': {folder}/labels.txt: no such file or directory: "
            "put it here, or remove the name"
        ),
    ]
    (folder / "warm.npz").write_text("no zip")
    (folder / "labels.txt").write_bytes(b"\xff")
    assert said(repository) == [
        "m/labels.txt: error: not UTF-8 text: save it as UTF-8",
        "m/warm.npz: error: not an .npz file: write it with numpy.savez",
    ]
    np.savez(folder / "warm.npz", x=np.zeros((1, 4), np.float32))
    (folder / "labels.txt").write_text("\n")
    assert said(repository) == ["m/labels.txt: error: no label in it: write one a line"]
    (folder / "labels.txt").write_text("cat\n")
    assert check([repository]) == ()


def test_a_warmup_file_of_triton_has_the_bytes_of_one_row(repository: Path) -> None:
    folder = repository / "m"
    (folder / "config.pbtxt").write_text(
        "max_batch_size: 8\nmodel_warmup { name: 'w' batch_size: 8\n"
        " inputs { key: 'x' value { data_type: TYPE_FP32 dims: 4 input_data_file: 'x.bin' } } }\n"
    )
    (missing,) = check([repository])
    assert (missing.path, missing.line) == (folder / "config.pbtxt", 2)
    (folder / "warmup").mkdir()
    (folder / "warmup" / "x.bin").write_bytes(bytes(15))
    (finding,) = check([repository])
    assert finding.message == "15 bytes, but input 'x' of warm-up 'w' has 16"
    (folder / "warmup" / "x.bin").write_bytes(bytes(16))
    assert check([repository]) == ()


def test_a_folder_is_no_onnx_model(repository: Path) -> None:
    (repository / "m" / "config.pbtxt").write_text(
        'default_model_filename: "weights"\nbackend: "onnxruntime"'
    )
    (repository / "m" / "1" / "weights").mkdir()
    assert said(repository) == ["m/1/weights: error: a folder, not a model file: put the file here"]


def test_our_file_goes_over_triton_s_and_must_not_contradict_it(repository: Path) -> None:
    (repository / "m" / "config.pbtxt").write_text(
        'name: "m"\nmax_batch_size: 8\ndynamic_batching {\n preferred_batch_size: [ 4 ] }\n'
    )
    (repository / "m" / "model.toml").write_text("max_batch_size = 2\n")
    assert said(repository) == [
        "m/config.pbtxt:4: error: 4 is more than the max_batch_size of 2: lower it, or raise max_batch_size"
    ]


def test_nothing_heavy_is_imported(repository: Path) -> None:
    script = (
        "import sys\nfrom pathlib import Path\nfrom predictd.server.repository.check import check\n"
        f"assert not check([Path({str(repository)!r})])\n"
        "heavy = ('grpc', 'onnxruntime', 'onnx', 'google.protobuf', 'predictd.protos')\n"
        "sys.exit(str([name for name in heavy if name in sys.modules]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, env=dict(os.environ)
    )
    assert done.stderr == "[]\n"
