from __future__ import annotations

from pathlib import Path

import pytest

from predictd.server.config.model_config import All, Latest, ModelConfig, ModelConfigError, Origin, Specific
from predictd.server.repository.scan import scan
from predictd.server.repository.tfs_config import TfsConfig, TfsModel, read_tfs_config
from tests.fixtures import models


def read(folder: Path, text: str) -> TfsConfig:
    path = folder / "models.config"
    path.write_text(text)
    return read_tfs_config(path)


def listed(*configs: str) -> str:
    return "model_config_list {\n" + "".join(f"config {{ {config} }}\n" for config in configs) + "}\n"


def test_a_list_of_models(tmp_path: Path) -> None:
    text = """\
model_config_list: {
  config: {
    name: 'first',
    base_path: '/models/first',
    model_platform: 'tensorflow',
    model_version_policy: { specific: { versions: 2, versions: 1 } },
    version_labels { key: 'stable' value: 1 }
    version_labels { key: 'canary' value: 2 }
  },
  config: { name: "second" base_path: "here/second" model_version_policy { all {} } }
  config: { name: "third" base_path: "third" model_type: OTHER model_version_policy { latest { num_versions: 3 } } }
  config: { name: "fourth" base_path: "fourth" }
}
"""
    found = read(tmp_path, text)
    assert found.notices == ()
    first = ModelConfig(version_policy=Specific((1, 2)), labels={"stable": 1, "canary": 2})
    assert found.models == (
        TfsModel("first", Path("/models/first"), 2, first),
        TfsModel("second", tmp_path / "here" / "second", 10, ModelConfig(version_policy=All())),
        TfsModel("third", tmp_path / "third", 11, ModelConfig(version_policy=Latest(3))),
        TfsModel("fourth", tmp_path / "fourth", 12, ModelConfig()),
    )
    path = tmp_path / "models.config"
    assert found.models[0].config.origins == {"version_policy": Origin(path, 6), "labels": Origin(path, 7)}


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("base_path: 'x'", "a model without a name"),
        ("name: 'x'", "model 'x' has no base_path"),
        ("name: 'x' base_path: 's3://bucket/x'", "base_path 's3://bucket/x' is not a folder of this machine"),
        ("name: 'x' base_path: 'x' model_platform: 'pytorch'", "model_platform 'pytorch' is not served here"),
        ("name: 'x' base_path: 'x' base_pat: 'x'", "unknown field 'base_pat'; did you mean 'base_path'?"),
        (
            "name: 'x' base_path: 'x' model_version_policy { specific { } }",
            "specific takes at least one version",
        ),
        ("name: 'x' base_path: 'x' version_labels { key: '7' value: 1 }", "'7' cannot be a label"),
        ("name: 'x' base_path: 'x' version_labels { key: 'a' }", "label 'a': there is no version 0"),
        ("name: 'good' base_path: 'x'", "a model called 'good' is there already"),
    ],
)
def test_a_bad_entry_leaves_the_others_alone(bad: str, message: str, tmp_path: Path) -> None:
    found = read(tmp_path, listed("name: 'good' base_path: 'good'", bad))
    assert [model.name for model in found.models] == ["good"]
    (notice,) = found.notices
    assert (notice.line, notice.severity) == (3, "error")
    assert message in notice.message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no model here"),
        ("model_config_list { }", "no model here"),
        ("custom_model_config { }", "no source of models is built in"),
        ("model_config { }", "unknown field 'model_config'; did you mean 'model_config_list'?"),
    ],
)
def test_a_file_without_models(text: str, message: str, tmp_path: Path) -> None:
    found = read(tmp_path, text)
    assert found.models == ()
    (notice,) = found.notices
    assert message in notice.message


def test_logging_is_not_done_and_said(tmp_path: Path) -> None:
    config = "name: 'x' base_path: 'x' logging_config { sampling_config { sampling_rate: 0.1 } }"
    found = read(tmp_path, listed(config))
    assert [model.name for model in found.models] == ["x"]
    assert [(notice.line, notice.severity, notice.message) for notice in found.notices] == [
        (2, "warning", "requests are not logged")
    ]


def test_no_text_format_and_no_file(tmp_path: Path) -> None:
    with pytest.raises(ModelConfigError, match=r"models\.config:1: expected"):
        read(tmp_path, "model_config_list")
    with pytest.raises(ModelConfigError, match=r"missing\.config: no such file"):
        read_tfs_config(tmp_path / "missing.config")


def test_a_scan_finds_the_listed_models_where_they_are(tmp_path: Path) -> None:
    for version in ("1", "2", "3"):
        (tmp_path / "store" / version).mkdir(parents=True)
        models.affine(tmp_path / "store" / version / "model.onnx")
    policy = "model_version_policy { specific { versions: [ 1, 3, 9 ] } }"
    labels = "version_labels { key: 'stable' value: 1 } version_labels { key: 'canary' value: 2 }"
    (tmp_path / "models.config").write_text(
        listed(f"name: 'served' base_path: 'store' {policy} {labels}", "name: 'gone' base_path: 'nowhere'")
    )
    (tmp_path / "store" / "model.toml").write_text("threads = 1\nversion_policy = 'all'\n")
    found = scan([tmp_path / "models.config"])
    (model,) = found.models
    assert (model.name, model.file.threads) == ("served", 1)
    assert model.file.version_policy == Specific((1, 3, 9))
    assert [str(problem) for problem in found.problems] == [
        f"{tmp_path}/models.config:2: version 9 is to be served and is not there: add it, or correct the policy",
        (
            f"{tmp_path}/models.config:2: label 'canary' means nothing: version 2 is not served: "
            "correct the label or the policy"
        ),
        f"{tmp_path}/nowhere: no such file or folder",
    ]
    assert [rejected.name for rejected in found.rejected] == ["gone"]
