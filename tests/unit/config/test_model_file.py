from __future__ import annotations

import os
from pathlib import Path

import pytest

from predictd.engines.api import DType
from predictd.server.config.model_config import (
    DTYPES,
    All,
    Latest,
    ModelConfig,
    ModelConfigError,
    Notice,
    Origin,
    QueuePolicy,
    Reading,
    Specific,
    TensorConfig,
    VersionPolicy,
    Warmup,
    overlay,
)
from predictd.server.config.model_file import read_model_file
from predictd.server.config.small_file import BYTES_MAX


def read(folder: Path, text: str) -> Reading:
    path = folder / "model.toml"
    path.write_text(text)
    return read_model_file(path)


def usable(folder: Path, text: str) -> ModelConfig:
    reading = read(folder, text)
    assert reading.notices == ()
    return reading.config


def test_an_empty_file_says_nothing(tmp_path: Path) -> None:
    assert usable(tmp_path, "") == ModelConfig()


def test_all_keys(tmp_path: Path) -> None:
    text = """
        engine = "my_package.engines:load"
        pool = "small"
        max_batch_size = 8
        max_delay = "2ms"
        preferred_batch_sizes = [8, 4, 4]
        instances = 2
        threads = 3
        allocator = "jemalloc"
        openmp = "libiomp5"
        max_queue_size = 16
        default_timeout = "100ms"
        allow_timeout_override = true
        timeout_action = "delay"
        priority_levels = 3
        default_priority = 2
        version_policy = {latest = 2}
        [priority_queues]
        1 = {max_queue_size = 4, allow_timeout_override = false}
        3 = {default_timeout = "1s", timeout_action = "reject"}
        [labels]
        stable = 3
        canary = 4
        [warmup]
        mode = "zeros"
        [inputs]
        "image" = {dtype = "UINT8", shape = [-1, 3, 224, 224]}
        [outputs."scores"]
        dtype = "FP32"
        shape = [-1, 1000]
        labels_file = "labels.txt"
        [parameters]
        precision = "fp16"
        level = 2
        ratio = 0.5
        verbose = true
        """
    assert usable(tmp_path, text) == ModelConfig(
        engine="my_package.engines:load",
        pool="small",
        max_batch_size=8,
        max_delay_ns=2_000_000,
        preferred_batch_sizes=(4, 8),
        instances=2,
        threads=3,
        allocator="jemalloc",
        openmp="libiomp5",
        max_queue_size=16,
        default_timeout_ns=100_000_000,
        allow_timeout_override=True,
        timeout_action="delay",
        priority_levels=3,
        default_priority=2,
        priority_queues={
            1: QueuePolicy(max_queue_size=4, allow_timeout_override=False),
            3: QueuePolicy(default_timeout_ns=10**9, timeout_action="reject"),
        },
        version_policy=Latest(2),
        labels={"stable": 3, "canary": 4},
        warmup=Warmup(mode="zeros"),
        inputs=(TensorConfig(name="image", dtype="UINT8", shape=(-1, 3, 224, 224)),),
        outputs=(
            TensorConfig(name="scores", dtype="FP32", shape=(-1, 1000), labels_file=tmp_path / "labels.txt"),
        ),
        parameters={"precision": "fp16", "level": "2", "ratio": "0.5", "verbose": "true"},
    )


def test_every_setting_knows_its_line(tmp_path: Path) -> None:
    text = 'threads = 1\n\n"max_delay" = "1ms"\n[labels]\nx = 1\n[outputs.y]\nlabels_file = "l"\n'
    path = tmp_path / "model.toml"
    assert usable(tmp_path, text).origins == {
        "threads": Origin(path, 1),
        "max_delay_ns": Origin(path, 3),
        "labels": Origin(path, 4),
        "outputs": Origin(path, 6),
    }


def test_a_warmup_file_lies_beside_it(tmp_path: Path) -> None:
    config = usable(tmp_path, 'warmup = {file = "samples/a.npz"}')
    assert config.warmup == Warmup(mode="file", file=tmp_path / "samples" / "a.npz")


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ('"all"', All()),
        ("{latest = 1}", Latest(1)),
        ("{specific = [7, 2, 7]}", Specific((2, 7))),
    ],
)
def test_version_policies(text: str, policy: VersionPolicy, tmp_path: Path) -> None:
    assert usable(tmp_path, f"version_policy = {text}").version_policy == policy


@pytest.mark.parametrize(
    ("engine", "custom"), [("onnxruntime", False), ("tensorrt-rtx", False), ("a.b:c", True)]
)
def test_an_engine_of_the_user_s_own_is_told_by_its_colon(
    engine: str, tmp_path: Path, *, custom: bool
) -> None:
    assert usable(tmp_path, f'engine = "{engine}"').custom_engine is custom


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
        ("preferred_batch_sizes = 4", "preferred_batch_sizes: expected an array of whole numbers"),
        ("preferred_batch_sizes = [0]", "preferred_batch_sizes: 0 is too small"),
        ("preferred_batch_sizes = [true]", "preferred_batch_sizes: expected a whole number, not a boolean"),
        ("run_timeout = '900ms'", "run_timeout: 900ms is too small"),
        ("default_timeout = '0s'", "default_timeout: 0s is too small"),
        ("allow_timeout_override = 1", "allow_timeout_override: expected true or false, not an integer"),
        ("timeout_action = 'drop'", "timeout_action: 'drop' is not one of reject, delay"),
        ("priority_levels = 17", "priority_levels: 17 is too large: the most is 16"),
        ("version_policy = 'latest'", 'version_policy: write "all", {latest = N} or {specific = [N, ...]}'),
        ("version_policy = {}", 'version_policy: write "all"'),
        ("version_policy = {latest = 1, specific = [1]}", 'version_policy: write "all"'),
        ("version_policy = {lates = 1}", "version_policy: unknown key 'lates'; did you mean 'latest'?"),
        ("version_policy = {latest = 0}", "version_policy: latest: 0 is too small"),
        ("version_policy = {specific = []}", "version_policy: specific: an empty array serves no version"),
        ("version_policy = {specific = ['1']}", "version_policy: specific: expected a whole number"),
        ("labels = {'7' = 1}", "labels: '7' cannot be a label"),
        ("labels = {'a b' = 1}", "labels: 'a b' cannot be a label"),
        ("labels = {a = 0}", "labels: a: 0 is too small"),
        ("warmup = {}", "warmup: set either mode or file"),
        ("warmup = {mode = 'none', file = 'x'}", "warmup: set either mode or file"),
        ("warmup = {mode = 'ones'}", "warmup: mode: 'ones' is not one of zeros, random, none"),
        ("warmup = {file = ''}", "warmup: file: expected the name of a file"),
        ("inputs = {x = {labels_file = 'x'}}", "inputs: x: unknown key 'labels_file'"),
        ("inputs = {x = {dtype = 'FP23'}}", "inputs: x: dtype: 'FP23' is not one of BOOL, UINT8"),
        (
            "inputs = {x = {shape = 3}}",
            "shape: expected an array of dimensions, -1 where one may vary, not an",
        ),
        (
            "inputs = {x = {shape = [0]}}",
            "shape: 0 is no dimension: write a number from 1, or -1 if it varies",
        ),
        ("inputs = {x = {shape = [-2]}}", "shape: -2 is no dimension"),
        ("inputs = {x = {shape = [-1.0]}}", "shape: expected a whole number, not a float"),
        ("outputs = {y = 1}", "outputs: y: expected a table, not an integer"),
        ("outputs = {y = {label_file = 'x'}}", "unknown key 'label_file'; did you mean 'labels_file'?"),
        ("parameters = 1", "parameters: expected a table, not an integer"),
        ("[parameters]\nx = [1]", "parameters: x must be a string, a number or a boolean"),
        ("parameters.x.y = 1", "parameters: x must be a string, a number or a boolean"),
        (
            "max_batch_size = 2\npreferred_batch_sizes = [2, 4]",
            "preferred_batch_sizes: 4 is more than the max_batch_size of 2",
        ),
        (
            "priority_levels = 2\npriority_queues = {3 = {}}",
            "priority_queues: 3 is no priority: the lowest of priority_levels is 2",
        ),
        (
            "priority_levels = 2\npriority_queues = {1 = {max_queue_siz = 3}}",
            "priority_queues: 1: unknown key 'max_queue_siz'; did you mean 'max_queue_size'?",
        ),
        ("default_priority = 1", "default_priority: 1 is no priority: priority_levels is not set"),
        (
            "priority_levels = 2\ndefault_priority = 3",
            "default_priority: 3 is no priority: the lowest of priority_levels is 2",
        ),
    ],
)
def test_an_error_names_the_key_and_its_line(text: str, message: str, tmp_path: Path) -> None:
    reading = read(tmp_path, "threads = 1\n" + text)
    (notice,) = reading.notices
    assert not reading.usable
    assert message in notice.message
    lines = ["", "threads = 1", *text.splitlines()]
    assert notice.line is not None
    assert notice.field in lines[notice.line]
    assert "\n" not in notice.message
    assert reading.config.threads == 1


def test_all_errors_are_said_at_once(tmp_path: Path) -> None:
    notices = read(tmp_path, "instance = 2\nthreads = 0\nmax_delay = 5\n").notices
    assert [(notice.line, notice.field) for notice in notices] == [
        (1, "instance"),
        (2, "threads"),
        (3, "max_delay"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\n[", r":2: not TOML: "),
        ("x = 1\nx = 2", r":2: not TOML: "),
        ("x = " + "[" * 20_000, r":1: not TOML: nested too deeply"),
        ("x = " + "[\n" * 20_000, r":20000: not TOML: nested too deeply"),
        ("x = 1\n" + ".".join("a" * 1000) + " = 1", r":2: not TOML: nested too deeply"),
    ],
)
def test_no_toml_is_one_line(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelConfigError, match=rf"model\.toml{message}") as caught:
        read(tmp_path, text)
    assert caught.value.place == str(tmp_path / "model.toml")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(ModelConfigError, match=r"model\.toml: no such file or directory"):
        read_model_file(tmp_path / "model.toml")
    (tmp_path / "model.toml").write_text("#" * (BYTES_MAX + 1))
    with pytest.raises(ModelConfigError, match=r"model\.toml: larger than 1048576 bytes"):
        read_model_file(tmp_path / "model.toml")
    os.mkfifo(tmp_path / "pipe.toml")
    with pytest.raises(ModelConfigError, match=r"pipe\.toml: not a regular file"):
        read_model_file(tmp_path / "pipe.toml")
    (tmp_path / "model.toml").write_bytes(b"\xff")
    with pytest.raises(ModelConfigError, match=r"model\.toml: not TOML: not UTF-8 text"):
        read_model_file(tmp_path / "model.toml")


def test_one_configuration_over_another() -> None:
    below = ModelConfig(
        engine="onnxruntime",
        max_batch_size=8,
        instances=2,
        priority_queues={1: QueuePolicy(max_queue_size=4)},
        inputs=(TensorConfig(name="x", dtype="FP32", shape=(3,)),),
        outputs=(TensorConfig(name="y", shape=(5,), labels_file=Path("a")),),
        labels={"stable": 1, "canary": 2},
        parameters={"a": "1", "b": "2"},
        origins={"instances": Origin(Path("below"), 1), "max_batch_size": Origin(Path("below"), 2)},
    )
    above = ModelConfig(
        max_batch_size=4,
        allow_timeout_override=False,
        outputs=(TensorConfig(name="y", labels_file=Path("b")), TensorConfig(name="z")),
        labels={"stable": 3},
        parameters={"b": "3"},
        origins={"max_batch_size": Origin(Path("above"))},
    )
    both = overlay(below, above)
    assert both == ModelConfig(
        engine="onnxruntime",
        max_batch_size=4,
        instances=2,
        allow_timeout_override=False,
        priority_queues={1: QueuePolicy(max_queue_size=4)},
        inputs=below.inputs,
        outputs=(TensorConfig(name="y", shape=(5,), labels_file=Path("b")), TensorConfig(name="z")),
        labels={"stable": 3, "canary": 2},
        parameters={"a": "1", "b": "3"},
    )
    assert {name: str(origin) for name, origin in both.origins.items()} == {
        "instances": "below:1",
        "max_batch_size": "above",
    }
    assert overlay(below, ModelConfig()) == overlay(ModelConfig(), below) == below


def test_a_warning_leaves_a_configuration_usable() -> None:
    warning = Notice(1, "x", "not done", severity="warning")
    assert Reading(ModelConfig(), (warning,)).usable
    assert not Reading(ModelConfig(), (warning, Notice(2, "y", "wrong"))).usable


def test_dtypes_are_those_of_the_engines() -> None:
    assert tuple(dtype.name for dtype in DType) == DTYPES
