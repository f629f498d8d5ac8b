from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from predictd.server.config.model_file import ModelFile, read_model_file
from predictd.server.config.settings import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


def read(folder: Path, text: str) -> ModelFile:
    path = folder / "model.toml"
    path.write_text(text)
    return read_model_file(path)


def test_an_empty_file_says_nothing(tmp_path: Path) -> None:
    assert read(tmp_path, "") == ModelFile()


def test_all_keys(tmp_path: Path) -> None:
    text = """
        engine = "my_package.engines:load"
        pool = "small"
        max_batch_size = 8
        max_delay = "2ms"
        max_queue_size = 16
        instances = 2
        threads = 3
        [parameters]
        precision = "fp16"
        level = 2
        ratio = 0.5
        verbose = true
        """
    assert read(tmp_path, text) == ModelFile(
        engine="my_package.engines:load",
        pool="small",
        max_batch_size=8,
        max_delay_ns=2_000_000,
        max_queue_size=16,
        instances=2,
        threads=3,
        parameters={"precision": "fp16", "level": "2", "ratio": "0.5", "verbose": "true"},
    )


@pytest.mark.parametrize(
    ("engine", "custom"), [("onnxruntime", False), ("tensorrt-rtx", False), ("a.b:c", True)]
)
def test_an_engine_of_the_user_s_own_is_told_by_its_colon(
    engine: str, tmp_path: Path, *, custom: bool
) -> None:
    assert read(tmp_path, f'engine = "{engine}"').custom_engine is custom


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("instance = 2", "unknown key 'instance'; did you mean 'instances'?"),
        ("instances = 'auto'", "instances: expected a whole number, not a string"),
        ("instances = 0", "instances: 0 is too small: the least is 1"),
        ("max_batch_size = 0", "max_batch_size: 0 is too small: the least is 1"),
        ("max_delay = 2", "max_delay: '2' has no unit"),
        ("max_delay = '2m'", "max_delay: 2m is too large: the most is 1m"),
        ("engine = 'ONNX Runtime'", "engine: 'ONNX Runtime' is not an engine's name or"),
        ("engine = 'a.b:'", "engine: 'a.b:' is not an engine's name or"),
        ("pool = 'a/b'", "pool: 'a/b' is not a pool name"),
        (f"pool = '{'a' * 65}'", "is not a pool name"),
        ("parameters = 1", "parameters: expected a table, not an integer"),
        ("[parameters]\nx = [1]", "parameters: x must be a string, a number or a boolean"),
        ("parameters.x.y = 1", "parameters: x must be a string, a number or a boolean"),
        ("[", "not TOML: "),
    ],
)
def test_an_error_names_file_and_key(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    assert caught.value.place == str(tmp_path / "model.toml")
    assert message in caught.value.message
    assert "\n" not in str(caught.value)
