from __future__ import annotations

import os
from pathlib import Path

import pytest

from predictd.server.config.model_config import ModelConfig
from predictd.server.repository.models import FoundModel, FoundVersion, Scan, served_versions
from predictd.server.repository.scan import scan
from tests.fixtures import triton_repositories


def make(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            path.mkdir(exist_ok=True)
        else:
            path.touch()
    return root


def found(result: Scan, root: Path) -> dict[str, list[tuple[int, str]]]:
    return {
        model.name: [(version.version, str(version.path.relative_to(root))) for version in model.versions]
        for model in result.models
    }


def problems(result: Scan, root: Path) -> dict[str, str]:
    return {str(problem.path.relative_to(root)): problem.message for problem in result.problems}


def test_a_file_is_a_model_of_its_name(tmp_path: Path) -> None:
    make(tmp_path, "resnet.v2.onnx")
    result = scan([tmp_path / "resnet.v2.onnx"])
    expected = FoundModel("resnet.v2", (FoundVersion(1, tmp_path / "resnet.v2.onnx"),), ModelConfig())
    assert result == Scan(models=(expected,), problems=())


def test_a_repository_holds_files_model_folders_and_version_folders(tmp_path: Path) -> None:
    make(tmp_path, "bare.onnx", "plain/model.onnx", "README.md", ".git/config", ".hidden.onnx")
    make(
        tmp_path, "many/1/model.onnx", "many/10/model.onnx", "many/9/any.onnx", "many/README.md", "many/.tmp/"
    )
    result = scan([tmp_path])
    assert found(result, tmp_path) == {
        "bare": [(1, "bare.onnx")],
        "many": [(10, "many/10/model.onnx"), (9, "many/9/any.onnx"), (1, "many/1/model.onnx")],
        "plain": [(1, "plain/model.onnx")],
    }
    assert result.problems == ()


def test_files_of_every_engine_are_models(tmp_path: Path) -> None:
    make(
        tmp_path, "a.xml", "a.bin", "b/model.xml", "b/model.bin", "c/2/model.xml", "c/1/any.xml", "7/1/x.xml"
    )
    result = scan([tmp_path])
    assert found(result, tmp_path) == {
        "7": [(1, "7/1/x.xml")],
        "a": [(1, "a.xml")],
        "b": [(1, "b/model.xml")],
        "c": [(2, "c/2/model.xml"), (1, "c/1/any.xml")],
    }
    assert (result.problems, result.warnings) == ((), ())
    (single,) = scan([tmp_path / "a.xml"]).models
    assert single.name == "a"


def test_of_two_files_with_one_name_the_engine_decides_and_the_other_is_mentioned(tmp_path: Path) -> None:
    make(tmp_path, "m.onnx", "m.xml", "n.onnx", "n.xml")
    (tmp_path / "n.toml").write_text('engine = "openvino"')
    result = scan([tmp_path])
    assert found(result, tmp_path) == {"m": [(1, "m.onnx")], "n": [(1, "n.xml")]}
    assert result.problems == ()
    assert [str(warning).removeprefix(f"{tmp_path}/") for warning in result.warnings] == [
        "m.xml: not served, as m.onnx is the model of this name: remove it, or name its engine in m.toml",
        "n.onnx: not served, as n.xml is the model of this name: remove it, or name its engine in n.toml",
    ]


def test_a_file_of_another_engine_than_the_one_that_is_named_is_a_problem(tmp_path: Path) -> None:
    make(tmp_path, "a.xml", "b/1/w.xml", "c.onnx")
    (tmp_path / "a.toml").write_text('engine = "onnxruntime"')
    (tmp_path / "c.toml").write_text('engine = "openvino"')
    (tmp_path / "b" / "config.pbtxt").write_text('backend: "onnxruntime" default_model_filename: "w.xml"')
    result = scan([tmp_path])
    assert list(found(result, tmp_path)) == ["c"]
    message = "engine 'onnxruntime' does not serve .xml files: name another engine, or leave it out"
    assert problems(result, tmp_path) == {"a.xml": message, "b/1": message}


def test_the_highest_version_is_served(tmp_path: Path) -> None:
    make(tmp_path, "m/9/model.onnx", "m/10/model.onnx")
    (model,) = scan([tmp_path]).models
    assert [version.version for version in served_versions(model)] == [10]


@pytest.mark.parametrize(
    "names", [("1/model.onnx", "2/model.onnx"), ("1/model.onnx", "2/model.onnx", "labels/")]
)
def test_a_model_s_folder_given_directly_is_called_like_the_folder(
    names: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "resnet", *names)
    expected = {"resnet": [(2, "resnet/2/model.onnx"), (1, "resnet/1/model.onnx")]}
    assert found(scan([tmp_path / "resnet"]), tmp_path) == expected
    monkeypatch.chdir(tmp_path / "resnet")
    (model,) = scan([Path()]).models
    assert model.name == "resnet"


def test_a_folder_with_only_a_model_onnx_is_called_like_the_folder(tmp_path: Path) -> None:
    make(tmp_path / "bert", "model.onnx", "tokenizer.json")
    assert found(scan([tmp_path / "bert"]), tmp_path) == {"bert": [(1, "bert/model.onnx")]}


def test_a_model_onnx_among_others_is_one_of_them(tmp_path: Path) -> None:
    make(tmp_path, "model.onnx", "other.onnx", "third/1/model.onnx")
    assert list(found(scan([tmp_path]), tmp_path)) == ["model", "other", "third"]


def test_a_repository_may_have_models_with_numbers_for_names(tmp_path: Path) -> None:
    make(tmp_path, "7/1/model.onnx", "8/2/model.onnx")
    expected = {"7": [(1, "7/1/model.onnx")], "8": [(2, "8/2/model.onnx")]}
    assert found(scan([tmp_path]), tmp_path) == expected


def test_a_model_toml_in_the_folder_or_beside_the_file_is_read(tmp_path: Path) -> None:
    make(tmp_path, "a/1/model.onnx", "b.onnx", "c/model.onnx")
    (tmp_path / "a" / "model.toml").write_text("threads = 1")
    (tmp_path / "b.toml").write_text("threads = 2")
    (tmp_path / "c" / "model.toml").write_text("threads = 3")
    assert [model.file.threads for model in scan([tmp_path]).models] == [1, 2, 3]
    assert [model.file.threads for model in scan([tmp_path / "b.onnx"]).models] == [2]
    assert [model.file.threads for model in scan([tmp_path / "a"]).models] == [1]


def test_an_engine_of_the_user_s_own_may_load_anything(tmp_path: Path) -> None:
    make(tmp_path, "a/1/model.pt", "a/2/", "b/weights.npz")
    for name in ("a", "b"):
        (tmp_path / name / "model.toml").write_text('engine = "mine:load"')
    assert found(scan([tmp_path]), tmp_path) == {
        "a": [(2, "a/2"), (1, "a/1/model.pt")],
        "b": [(1, "b")],
    }
    assert found(scan([tmp_path / "a"]), tmp_path)["a"][0] == (2, "a/2")


def test_links_are_followed_and_give_their_own_name(tmp_path: Path) -> None:
    make(tmp_path, "store/abc/1/model.onnx", "store/x.bin", "repository/")
    repository = tmp_path / "repository"
    (repository / "resnet").symlink_to(tmp_path / "store" / "abc")
    (repository / "mlp.onnx").symlink_to(tmp_path / "store" / "x.bin")
    assert list(found(scan([repository]), tmp_path)) == ["mlp", "resnet"]
    assert list(found(scan([repository / "resnet"]), tmp_path)) == ["resnet"]


def test_a_bad_model_toml_fails_its_model_alone_and_names_the_key(tmp_path: Path) -> None:
    make(tmp_path, "a.onnx", "b.onnx")
    (tmp_path / "a.toml").write_text("thread = 1")
    result = scan([tmp_path])
    assert list(found(result, tmp_path)) == ["b"]
    assert problems(result, tmp_path) == {"a.toml": "unknown key 'thread'; did you mean 'threads'?"}


@pytest.mark.parametrize(
    ("names", "path", "message"),
    [
        (("notes.txt",), ".", "no model here: put <name>.onnx or <name>/1/model.onnx into it"),
        (("m/",), "m", "no model: put model.onnx here, or 1/model.onnx"),
        (("m/v1/model.onnx",), "m/v1", "version folders are called by a number from 1; rename it"),
        (("m/01/model.onnx",), "m/01", "version folders are called by a number from 1; rename it"),
        (
            ("m/first/model.onnx",),
            "m",
            "version folders are called by a number, such as 1/model.onnx; found first/",
        ),
        (("m/yolo.onnx",), "m", "rename yolo.onnx to model.onnx"),
        (("m/1/",), "m/1", "no model: put model.onnx here"),
        (("m/1/a.onnx", "m/1/b.onnx"), "m/1", "several .onnx files: name the one to serve model.onnx"),
        (("my model/1/model.onnx",), "my model", "'my model' cannot be a model's name: rename it"),
        (("my model.onnx",), "my model.onnx", "'my model' cannot be a model's name: rename it"),
        (("x.onnx", "x/1/model.onnx"), "x.onnx", "'x' is already served from "),
        (
            ("m/1/model.onnx", "m/model.onnx"),
            "m/model.onnx",
            "not served, as there are version folders beside",
        ),
    ],
)
def test_what_is_not_served_is_a_problem_with_path_and_remedy(
    names: tuple[str, ...], path: str, message: str, tmp_path: Path
) -> None:
    repository = make(tmp_path, *names, "good.onnx" if path != "." else "notes.txt")
    result = scan([repository])
    assert list(problems(result, tmp_path)) == [path]
    assert message in problems(result, tmp_path)[path]
    assert "\n" not in str(result.problems[0])
    assert path == "." or "good" in found(result, tmp_path)


def test_one_bad_version_does_not_hide_the_others(tmp_path: Path) -> None:
    make(tmp_path, "m/1/model.onnx", "m/2/")
    result = scan([tmp_path])
    assert found(result, tmp_path) == {"m": [(1, "m/1/model.onnx")]}
    assert list(problems(result, tmp_path)) == ["m/2"]


def test_a_path_that_is_no_model(tmp_path: Path) -> None:
    make(tmp_path, "notes.txt")
    result = scan([tmp_path / "notes.txt", tmp_path / "missing", tmp_path / "missing.onnx"])
    assert problems(result, tmp_path) == {
        "notes.txt": "not a model file: give an .onnx or .xml or .pt or .pt2 or .plan or .engine file, "
        "a model's folder, a repository or a models.config",
        "missing": "no such file or folder",
        "missing.onnx": "no such file or folder",
    }


def test_the_same_name_under_two_paths_is_served_from_the_first(tmp_path: Path) -> None:
    make(tmp_path, "one/m.onnx", "two/m.onnx")
    result = scan([tmp_path / "one", tmp_path / "two"])
    assert found(result, tmp_path) == {"m": [(1, "one/m.onnx")]}
    first = tmp_path / "one" / "m.onnx"
    expected = f"a model called 'm' is already served from {first}: rename one"
    assert problems(result, tmp_path) == {"two/m.onnx": expected}


def test_a_link_to_nothing_and_a_pipe_are_problems(tmp_path: Path) -> None:
    make(tmp_path, "good.onnx", "loop/")
    (tmp_path / "gone.onnx").symlink_to(tmp_path / "nothing")
    (tmp_path / "loop" / "1").symlink_to(tmp_path / "loop" / "1")
    os.mkfifo(tmp_path / "pipe.onnx")
    result = scan([tmp_path])
    assert list(found(result, tmp_path)) == ["good"]
    assert problems(result, tmp_path) == {
        "gone.onnx": "a link to nothing: repair or remove it",
        "loop": "no model: put model.onnx here, or 1/model.onnx",
        "pipe.onnx": "pipe.onnx is not a file",
    }


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("name", ["m/1/model.onnx", "m/1", "m", "bare.onnx", "m/model.toml"])
def test_what_this_user_may_not_read_is_a_problem(name: str, tmp_path: Path) -> None:
    make(tmp_path, "m/1/model.onnx", "m/model.toml", "bare.onnx", "good.onnx")
    secret = tmp_path / name
    secret.chmod(0)
    try:
        result = scan([tmp_path])
    finally:
        secret.chmod(0o700)
    assert list(problems(result, tmp_path)) == [name]
    assert "good" in found(result, tmp_path)


def test_an_unreadable_folder_names_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "m/1/model.onnx", "good.onnx")
    secret = tmp_path / "m"
    scandir = os.scandir

    def refuse(path: Path) -> object:
        if path == secret:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    result = scan([tmp_path])
    assert list(found(result, tmp_path)) == ["good"]
    expected = f"not readable by user {os.geteuid()}: change its permissions"
    assert problems(result, tmp_path) == {"m": expected}


def test_a_repository_of_triton_is_found_as_it_is(tmp_path: Path) -> None:
    triton_repositories.image_classifier(tmp_path)
    triton_repositories.text_model(tmp_path)
    triton_repositories.two_instances(tmp_path)
    result = scan([tmp_path])
    assert (result.problems, result.warnings, result.rejected) == ((), (), ())
    assert found(result, tmp_path) == {
        "image_classifier": [(1, "image_classifier/1/model.onnx")],
        "simple": [(2, "simple/2/model.onnx"), (1, "simple/1/model.onnx")],
        "text_model": [(1, "text_model/1/model.onnx")],
    }
    simple = result.models[1]
    assert [version.version for version in served_versions(simple)] == [2, 1]
    assert (simple.file.instances, simple.file.max_delay_ns) == (2, 100_000)
    assert [model.name for model in scan([tmp_path / "simple"]).models] == ["simple"]


def test_our_own_file_says_more_than_triton_s(tmp_path: Path) -> None:
    folder = triton_repositories.two_instances(tmp_path)
    (folder / "model.toml").write_text("instances = 3\n[labels]\nstable = 1\n")
    (model,) = scan([tmp_path]).models
    assert (model.file.instances, model.file.threads, dict(model.file.labels)) == (3, 1, {"stable": 1})
    assert {name: str(model.file.origins[name]) for name in ("instances", "threads")} == {
        "instances": f"{folder}/model.toml:1",
        "threads": f"{folder}/config.pbtxt:21",
    }


def test_what_triton_does_and_predictd_does_not_is_a_warning_with_its_line(tmp_path: Path) -> None:
    make(tmp_path, "m/1/model.onnx")
    (tmp_path / "m" / "config.pbtxt").write_text("name: 'm'\nresponse_cache { enable: true }\n")
    result = scan([tmp_path])
    assert [model.name for model in result.models] == ["m"]
    assert [str(warning) for warning in result.warnings] == [
        f"{tmp_path}/m/config.pbtxt:2: answers are not cached; every request is computed"
    ]


def test_a_model_that_cannot_be_served_as_it_is_is_not_gone(tmp_path: Path) -> None:
    make(tmp_path, "good/1/model.onnx", "config/1/model.onnx", "empty/", "half/1/")
    (tmp_path / "config" / "config.pbtxt").write_text("name: 'other'")
    (tmp_path / "broken.onnx").symlink_to(tmp_path / "nothing")
    result = scan([tmp_path])
    assert list(found(result, tmp_path)) == ["good"]
    assert {model.name: len(model.versions) for model in result.rejected} == {
        "broken": 0,
        "config": 1,
        "empty": 0,
        "half": 0,
    }


def test_a_file_with_external_data_may_be_in_a_folder_of_its_name(tmp_path: Path) -> None:
    make(tmp_path, "m/1/model.onnx/model.onnx", "m/1/model.onnx/weights.bin")
    assert found(scan([tmp_path]), tmp_path) == {"m": [(1, "m/1/model.onnx/model.onnx")]}


def test_a_version_or_label_in_vain_is_a_problem_with_its_line(tmp_path: Path) -> None:
    make(tmp_path, "m/1/model.onnx", "m/2/model.onnx", "m/3/")
    (tmp_path / "m" / "model.toml").write_text(
        "version_policy = {specific = [1, 3, 4]}\n[labels]\nstable = 1\nnew = 2\nbroken = 3\ngone = 5\n"
    )
    result = scan([tmp_path])
    (model,) = result.models
    assert [version.version for version in served_versions(model)] == [1]
    assert [(problem.path.name, problem.line, problem.what) for problem in result.problems] == [
        ("3", None, "no model"),
        ("model.toml", 1, "version 4 is to be served and is not there"),
        ("model.toml", 2, "label 'new' means nothing: version 2 is not served"),
        ("model.toml", 2, "label 'gone' means nothing: there is no version 5"),
    ]


def test_only_outputs_that_config_pbtxt_lists_can_have_labels(tmp_path: Path) -> None:
    make(tmp_path, "m/1/model.onnx")
    (tmp_path / "m" / "config.pbtxt").write_text(
        "backend: 'onnxruntime'\noutput { name: 'a' data_type: TYPE_FP32 dims: [2] }\n"
    )
    (tmp_path / "m" / "model.toml").write_text('[outputs.a]\nlabels_file = "labels.txt"\n')
    result = scan([tmp_path])
    (model,) = result.models
    assert (model.file.served_outputs, [output.name for output in model.file.outputs]) == (("a",), ["a"])
    (tmp_path / "m" / "model.toml").write_text('[outputs.b]\nlabels_file = "labels.txt"\n')
    result = scan([tmp_path])
    assert problems(result, tmp_path) == {
        "m/model.toml": "output 'b' is not served: config.pbtxt lists 'a'",
    }
    assert [model.name for model in result.rejected] == ["m"]
