from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from predictd.server.config.model_config import (
    All,
    Latest,
    ModelConfig,
    ModelConfigError,
    Origin,
    QueuePolicy,
    Reading,
    Specific,
    TensorConfig,
    Warmup,
    WarmupSample,
    WarmupTensor,
    reshaped,
)
from predictd.server.repository.config_pbtxt import read_config_pbtxt
from predictd.server.repository.protoschema import FieldType, Schema
from predictd.server.repository.triton_schema import MODEL_CONFIG
from tests.fixtures import triton_repositories


def read(folder: Path, text: str, name: str | None = None) -> Reading:
    path = folder / "config.pbtxt"
    path.write_text(text)
    return read_config_pbtxt(path, name)


def usable(folder: Path, text: str) -> ModelConfig:
    reading = read(folder, text)
    assert reading.notices == ()
    return reading.config


def test_an_empty_file_says_nothing(tmp_path: Path) -> None:
    assert usable(tmp_path, "") == ModelConfig()


def test_an_image_classifier_with_reshape_and_labels(tmp_path: Path) -> None:
    folder = triton_repositories.image_classifier(tmp_path)
    reading = read_config_pbtxt(folder / "config.pbtxt", "image_classifier")
    assert reading.notices == ()
    image = TensorConfig(name="data_0", dtype="FP32", shape=(3, 8, 8), model_shape=(1, 3, 8, 8))
    scores = TensorConfig(
        name="fc6_1", dtype="FP32", shape=(5,), model_shape=(1, 5, 1, 1), labels_file=folder / "labels.txt"
    )
    assert reading.config == ModelConfig(
        engine="onnxruntime", max_batch_size=1, inputs=(image,), outputs=(scores,), served_outputs=("fc6_1",)
    )
    assert reading.config.origins["engine"] == Origin(folder / "config.pbtxt", 2)


def test_a_text_model(tmp_path: Path) -> None:
    folder = triton_repositories.text_model(tmp_path)
    reading = read_config_pbtxt(folder / "config.pbtxt", "text_model")
    assert reading.notices == ()
    assert reading.config == ModelConfig(
        engine="onnxruntime",
        max_batch_size=16,
        inputs=(TensorConfig(name="TEXT", dtype="BYTES", shape=(-1, 1)),),
        outputs=(
            TensorConfig(name="NUMBER", dtype="FP32", shape=(-1, 1), model_shape=(-1,)),
            TensorConfig(name="ECHO", dtype="BYTES", shape=(-1, -1)),
        ),
        served_outputs=("NUMBER", "ECHO"),
    )


def test_two_instances_with_dynamic_batching(tmp_path: Path) -> None:
    folder = triton_repositories.two_instances(tmp_path)
    reading = read_config_pbtxt(folder / "config.pbtxt", "simple")
    assert reading.notices == ()
    inputs = (
        WarmupTensor(name="INPUT0", dtype="INT32", shape=(4, 16), rows=4, data="zeros"),
        WarmupTensor(name="INPUT1", dtype="INT32", shape=(4, 16), rows=4, data="random"),
    )
    assert reading.config == ModelConfig(
        engine="onnxruntime",
        max_batch_size=8,
        max_delay_ns=100_000,
        preferred_batch_sizes=(4, 8),
        instances=2,
        threads=1,
        max_queue_size=64,
        default_timeout_ns=5_000_000_000,
        allow_timeout_override=True,
        timeout_action="reject",
        warmup=Warmup(mode="samples", samples=(WarmupSample(name="zeros", runs=1, inputs=inputs),)),
        inputs=tuple(TensorConfig(name=f"INPUT{n}", dtype="INT32", shape=(-1, 16)) for n in range(2)),
        outputs=tuple(TensorConfig(name=f"OUTPUT{n}", dtype="INT32", shape=(-1, 16)) for n in range(2)),
        served_outputs=("OUTPUT0", "OUTPUT1"),
        version_policy=Latest(2),
        parameters={"graph_optimization_level": "extended"},
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('platform: "onnxruntime_onnx"', ModelConfig(engine="onnxruntime")),
        ('backend: "openvino"', ModelConfig(engine="openvino")),
        ('default_model_filename: "a.xml"', ModelConfig(engine="openvino", model_file="a.xml")),
        (
            (
                'backend: "openvino" optimization { graph { level: 1 } } '
                'parameters { key: "INFERENCE_NUM_THREADS" value { string_value: "3" } }'
            ),
            ModelConfig(engine="openvino", threads=3),
        ),
        ('backend: "tensorrt"', ModelConfig(engine="tensorrt", model_file="model.plan")),
        ('platform: "pytorch_libtorch"', ModelConfig(engine="torch", model_file="model.pt")),
        ('default_model_filename: "net.pt2"', ModelConfig(engine="torch", model_file="net.pt2")),
        (
            (
                'backend: "pytorch" optimization { graph { level: 1 } } '
                'parameters { key: "INTRA_OP_THREAD_COUNT" value { string_value: "3" } }'
            ),
            ModelConfig(engine="torch", model_file="model.pt", threads=3),
        ),
        (
            (
                'platform: "tensorrt_plan" backend: "tensorrt" default_model_filename: "a.plan" '
                'cc_model_filenames { key: "8.9" value: "ada.plan" }'
            ),
            ModelConfig(
                engine="tensorrt", model_file="a.plan", model_files_by_capability={"8.9": "ada.plan"}
            ),
        ),
        ('default_model_filename: "a.plan"', ModelConfig(engine="tensorrt", model_file="a.plan")),
        ('default_model_filename: "a.onnx"', ModelConfig(engine="onnxruntime", model_file="a.onnx")),
        ("max_batch_size: 0", ModelConfig(max_batch_size=1)),
        ("max_batch_size: 3", ModelConfig(max_batch_size=3)),
        ("dynamic_batching { }", ModelConfig()),
        (
            "dynamic_batching { preferred_batch_size: 8, preferred_batch_size: [ 2, 8 ] }",
            ModelConfig(preferred_batch_sizes=(2, 8)),
        ),
        ("dynamic_batching { max_queue_delay_microseconds: 0 }", ModelConfig(max_delay_ns=0)),
        (
            "dynamic_batching { default_queue_policy { } }",
            ModelConfig(allow_timeout_override=False, timeout_action="reject"),
        ),
        (
            (
                "dynamic_batching { priority_levels: 2 default_priority_level: 1 "
                "priority_queue_policy { key: 2 value { timeout_action: DELAY default_timeout_microseconds: 7 } } }"
            ),
            ModelConfig(
                priority_levels=2,
                default_priority=1,
                priority_queues={
                    2: QueuePolicy(
                        max_queue_size=0,
                        default_timeout_ns=7000,
                        allow_timeout_override=False,
                        timeout_action="delay",
                    )
                },
            ),
        ),
        ("instance_group { kind: KIND_AUTO }", ModelConfig()),
        (
            "instance_group [ { count: 2 kind: KIND_CPU }, { count: 3 kind: KIND_MODEL } ]",
            ModelConfig(instances=5),
        ),
        (
            'backend: "tensorrt" instance_group [ { gpus: [ 1, 0 ] }, { count: 2 gpus: [ 3 ] kind: KIND_GPU } ]',
            ModelConfig(engine="tensorrt", model_file="model.plan", instances=4, device="1,0,3,3"),
        ),
        ("version_policy { all { } }", ModelConfig(version_policy=All())),
        ("version_policy: { latest: { } }", ModelConfig(version_policy=Latest(1))),
        (
            "version_policy { specific { versions: [ 3, 1, 3 ] } }",
            ModelConfig(version_policy=Specific((1, 3))),
        ),
        (
            "optimization { graph { level: -1 } }",
            ModelConfig(parameters={"graph_optimization_level": "basic"}),
        ),
        (
            "optimization { graph { level: 2 } }",
            ModelConfig(parameters={"graph_optimization_level": "disabled"}),
        ),
        (
            (
                'parameters { key: "intra_op_thread_count" value { string_value: "0" } } '
                'parameters { key: "execution_mode" value { string_value: "0" } } '
                'parameters { key: "inter_op_thread_count" value { string_value: "4" } } '
                'parameters [ { key: "enable_mem_arena" value { string_value: "0" } } ]'
            ),
            ModelConfig(parameters={"enable_cpu_mem_arena": "false"}),
        ),
        ("model_transaction_policy { decoupled: false } response_cache { enable: false }", ModelConfig()),
    ],
)
def test_what_predictd_does_as_triton_does_it(text: str, expected: ModelConfig, tmp_path: Path) -> None:
    assert usable(tmp_path, text) == expected


def test_a_warmup_file_lies_in_its_own_folder(tmp_path: Path) -> None:
    text = """
        model_warmup { batch_size: 1 count: 3
            inputs { key: "x" value { data_type: TYPE_STRING dims: [ 2, 3 ] input_data_file: "x.bin" } } }"""
    tensor = WarmupTensor(
        name="x", dtype="BYTES", shape=(2, 3), rows=None, data="file", file=tmp_path / "warmup" / "x.bin"
    )
    sample = WarmupSample(name="number 1", runs=3, inputs=(tensor,))
    assert usable(tmp_path, text).warmup == Warmup(mode="samples", samples=(sample,))


def test_the_name_must_be_the_model_s(tmp_path: Path) -> None:
    assert read(tmp_path, 'name: "a"', "a").usable
    assert read(tmp_path, "", "a").usable
    (notice,) = read(tmp_path, '\nname: "a"', "b").notices
    assert (notice.line, notice.message) == (2, "name is 'a', but the model is called 'b'")


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "config.pbtxt").mkdir()
    with pytest.raises(ModelConfigError, match=r"config\.pbtxt: is a directory"):
        read_config_pbtxt(tmp_path / "config.pbtxt")
    (tmp_path / "other.pbtxt").write_text("name: 'x'\n}")
    with pytest.raises(ModelConfigError, match=r"other\.pbtxt:2: expected"):
        read_config_pbtxt(tmp_path / "other.pbtxt")


@pytest.mark.parametrize(
    ("actual", "declared", "other", "expected"),
    [
        ((3, 8, 8), (3, 8, 8), (1, 3, 8, 8), (1, 3, 8, 8)),
        ((7, 1), (-1, 1), (-1,), (7,)),
        ((7, 5, 4, 2), (-1, -1, 4, 2), (-1, -1, 8), (7, 5, 8)),
    ],
)
def test_a_reshape_carries_varying_dimensions_over(
    actual: tuple[int, ...], declared: tuple[int, ...], other: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    assert reshaped(actual, declared, other) == expected
    assert reshaped(expected, other, declared) == actual


SCALARS = st.sampled_from(
    [
        *(
            "0",
            "1",
            "2",
            "-1",
            "17",
            "4000000000",
            "1e30",
            "nan",
            "true",
            "TYPE_FP32",
            "TYPE_STRING",
            "KIND_GPU",
        ),
        *("DELAY", '""', '"x"', '"onnxruntime"', '"tensorrt"', '"execution_mode"', '"intra_op_thread_count"'),
        *('"\\000"', '"\\377"', '"../.."', "[ ]", "[ 1, -1 ]", "{ }", "{ x: 1 }"),
    ]
)


def written(name: str, field: FieldType) -> st.SearchStrategy[str]:
    plain = SCALARS.map(lambda value: f"{name}: {value}\n")
    if not isinstance(field.type, Schema):
        return plain
    return plain | body(field.type).map(lambda inner: f"{name} {{\n{inner}}}\n")


def body(schema: Schema) -> st.SearchStrategy[str]:
    fields = [written(name, field) for name, field in schema.fields.items()]
    return st.lists(st.one_of(fields), max_size=6).map("".join) if fields else st.just("")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)
@given(body(MODEL_CONFIG))
def test_no_mixture_of_its_fields_is_more_than_noticed(tmp_path: Path, text: str) -> None:
    lines = text.count("\n") + 1
    for notice in read(tmp_path, text, "model").notices:
        assert notice.line is not None
        assert 1 <= notice.line <= lines
        assert "\n" not in notice.message + notice.remedy
