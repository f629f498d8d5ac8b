from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from predictd.server.config.model_config import Reading
from predictd.server.control.channel import MAX_MESSAGE_BYTES
from predictd.server.control.messages import AddLanes
from predictd.server.repository.config_pbtxt import read_config_pbtxt
from tests.fixtures.frontend import config


def read(folder: Path, text: str) -> Reading:
    path = folder / "config.pbtxt"
    path.write_text(text)
    return read_config_pbtxt(path)


@pytest.mark.parametrize(
    ("text", "line", "field", "message"),
    [
        (
            "dynamic_batching {\n preserve_ordering: true }",
            2,
            "dynamic_batching.preserve_ordering",
            "as they are ready",
        ),
        ("instance_group { count: 1\n kind: KIND_GPU }", 2, "instance_group.kind", "on the CPU"),
        ("instance_group {\n gpus: [ 0, 1 ] }", 2, "instance_group.gpus", "on the CPU"),
        (
            "instance_group { rate_limiter { resources [ { name: 'R' } ] } }",
            1,
            "instance_group.rate_limiter",
            "rationed",
        ),
        ("instance_group { passive: true count: 2 }", 1, "instance_group.passive", "not started"),
        ("\nresponse_cache { enable: true }", 2, "response_cache.enable", "not cached"),
        ('metric_tags { key: "a" value: "b" }', 1, "metric_tags", "no further tags"),
        ("model_metrics { metric_control { } }", 1, "model_metrics", "histograms"),
        ('cc_model_filenames { key: "8.9" value: "m" }', 1, "cc_model_filenames", "for GPUs"),
        ("optimization { priority: PRIORITY_MAX }", 1, "optimization.priority", "no model goes before"),
        (
            'optimization { execution_accelerators {\n cpu_execution_accelerator : [ { name : "openvino" } ] } }',
            1,
            "optimization.execution_accelerators",
            "without an accelerator",
        ),
        ("optimization { cuda { graphs: true } }", 1, "optimization.cuda", "CUDA graphs"),
        (
            "optimization { input_pinned_memory { enable: true } }",
            1,
            "optimization.input_pinned_memory",
            "no effect",
        ),
        (
            '\nparameters { key: "execution_mode" value { string_value: "1" } }',
            2,
            "parameters.execution_mode",
            "one after another",
        ),
        (
            'parameters { key: "gpu_mem_limit" value { string_value: "1" } }',
            1,
            "parameters.gpu_mem_limit",
            "'gpu_mem_limit' is not used",
        ),
        (
            'backend: "pytorch" parameters { key: "INFERENCE_MODE" value { string_value: "true" } }',
            1,
            "parameters.INFERENCE_MODE",
            "not used here",
        ),
        (
            'backend: "pytorch" parameters { key: "execution_mode" value { string_value: "0" } }',
            1,
            "parameters.execution_mode",
            "not used here",
        ),
        (
            "dynamic_batching { default_queue_policy {\n max_queue_size: 0 } }",
            2,
            "queue_policy.max_queue_size",
            "no limit to Triton",
        ),
        (
            "dynamic_batching { default_queue_policy { max_queue_size: 4000000000 } }",
            1,
            "queue_policy.max_queue_size",
            "lowered to 1048576",
        ),
        (
            'model_repository_agents { agents [ { name: "checksum" } ] }',
            1,
            "model_repository_agents.agents",
            "not verified",
        ),
    ],
)
def test_what_predictd_does_not_do_is_a_warning_with_its_line(
    text: str, line: int, field: str, message: str, tmp_path: Path
) -> None:
    (notice,) = read(tmp_path, text).notices
    assert (notice.line, notice.field, notice.severity) == (line, field, "warning")
    assert message in notice.message
    assert read(tmp_path, text).usable


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("max_batch_sizes: 1", 1, "unknown field 'max_batch_sizes'; did you mean 'max_batch_size'?"),
        ("input {\n dim: [ 1 ] }", 2, "unknown field 'dim'; did you mean 'dims'?"),
        ("max_batch_size: 'x'", 1, "max_batch_size: expected a whole number, not a string"),
        ("max_batch_size: 1.5", 1, "max_batch_size: expected a whole number, not a number"),
        ("max_batch_size: 3000000000", 1, "max_batch_size: 3000000000 is not between"),
        ("max_batch_size: -1", 1, "max_batch_size cannot be -1"),
        ("max_batch_size: 1\nmax_batch_size: 2", 2, "max_batch_size is there twice"),
        ("max_batch_size: [ 1 ]", 1, "max_batch_size takes one value, not a list"),
        ("input: 3", 1, "input: expected a message { }, not a number"),
        ('name: "\\377"', 1, "name: not UTF-8"),
        (
            "input { name: 'x' data_type: TYPE_FP33 }",
            1,
            "data_type: TYPE_FP33 is unknown; did you mean 'TYPE_FP32'?",
        ),
        ("version_policy { latest { }\n all { } }", 2, "all and latest cannot both be there"),
        ("version_policy { specific { } }", 1, "specific takes at least one version"),
        ("version_policy { specific { versions: 0 } }", 1, "specific takes at least one version"),
        ('platform: "tensorflow_savedmodel"', 1, "platform 'tensorflow_savedmodel' is not served here"),
        (
            'backend: "onnxrutnime"',
            1,
            "backend 'onnxrutnime' is not served here; did you mean 'onnxruntime'?",
        ),
        ('backend: "python"', 1, "backend 'python' is not served here"),
        ('platform: "tensorrt_plan"\nbackend: "onnxruntime"', 2, "platform and backend do not agree"),
        ('default_model_filename: "model.pb"', 1, "neither platform nor backend says what 'model.pb' is"),
        ('default_model_filename: "../x.onnx"', 1, "'../x.onnx' leads out of the model's folder"),
        ("ensemble_scheduling { step { } }", 1, "ensembles are not served"),
        ("\nsequence_batching { }", 2, "state is not kept between requests"),
        ("batch_input { kind: BATCH_ELEMENT_COUNT }", 1, "inputs about the batch are not made up"),
        ("batch_output { }", 1, "ragged outputs are not cut apart"),
        ("model_transaction_policy {\n decoupled: true }", 2, "exactly one answer"),
        ('model_operations { op_library_filename: "x.so" }', 1, "custom operators are not loaded"),
        ('model_repository_agents { agents { name: "decrypt" } }', 1, "repository agent 'decrypt'"),
        (
            "dynamic_batching { }\nsequence_batching { }",
            2,
            "sequence_batching and dynamic_batching cannot both",
        ),
        ("input { }", 1, "an input without a name"),
        ("input [ { name: 'x' },\n { name: 'x' } ]", 2, "input 'x' is there twice"),
        ("input { name: 'x'\n dims: [ 0 ] }", 2, "input 'x': 0 is no dimension"),
        ("output { name: 'x'\n dims: [ ] }", 2, "output 'x' has no dims"),
        ("input { name: 'x' allow_ragged_batch: true }", 1, "does not make ragged batches"),
        ("input { name: 'x' is_shape_tensor: true }", 1, "only TensorRT has shape tensors"),
        ("input { name: 'x' is_non_linear_format_io: true }", 1, "linear tensors only"),
        ("output { name: 'x' label_filename: '/etc/passwd' }", 1, "leads out of the model's folder"),
        ("input { name: 'x' dims: [ 4 ]\n reshape { shape: [ 5 ] } }", 2, "[4] cannot be reshaped to [5]"),
        ("input { name: 'x' dims: [ -1, 2 ] reshape { shape: [ 2, -1 ] } }", 1, "cannot be reshaped"),
        ("input { name: 'x' dims: [ -1 ] reshape { shape: [ -1, -1 ] } }", 1, "cannot be reshaped"),
        (
            "input { name: 'x' dims: [ 1 ] reshape { shape: [ ] } }",
            1,
            "only a model with max_batch_size from 1",
        ),
        ("input { name: 'x' dims: [ 4 ] reshape { shape: [ -4, -1 ] } }", 1, "neither -1 nor from 1"),
        ("input { name: 'x' reshape { shape: [ 1 ] } }", 1, "a reshape without dims"),
        (
            "max_batch_size: 2 dynamic_batching {\n preferred_batch_size: 4 }",
            2,
            "4 is more than the max_batch_size of 2",
        ),
        ("dynamic_batching { preferred_batch_size: 0 }", 1, "preferred_batch_size has 0"),
        ("dynamic_batching { max_queue_delay_microseconds: 60000001 }", 1, "more than 60 seconds"),
        ("dynamic_batching { priority_levels: 17 }", 1, "17 priority levels are more than 16"),
        ("dynamic_batching { priority_levels: 2 }", 1, "priority_levels without default_priority_level"),
        (
            "dynamic_batching { priority_levels: 2\n default_priority_level: 3 }",
            2,
            "3 is no priority: the lowest of priority_levels is 2",
        ),
        ("dynamic_batching { default_priority_level: 1 }", 1, "1 is no priority: priority_levels is not set"),
        ("dynamic_batching { priority_queue_policy { key: 1 value { } } }", 1, "1 is no priority"),
        ("instance_group { count: -1 }", 1, "count cannot be -1"),
        ("instance_group { count: 5000 }", 1, "5000 instances are more than 1024"),
        ("optimization { graph { level: 3 } }", 1, "graph level 3 is unknown"),
        (
            'parameters { key: "intra_op_thread_count" value { string_value: "many" } }',
            1,
            "intra_op_thread_count 'many' is not a number",
        ),
        (
            'parameters { key: "intra_op_thread_count" value { string_value: "99999999999999999999" } }',
            1,
            "is not a number from 0 to 1024",
        ),
        (
            'backend: "pytorch"\nparameters { key: "INTRA_OP_THREAD_COUNT" value { string_value: "many" } }',
            2,
            "INTRA_OP_THREAD_COUNT 'many' is not a number",
        ),
        ('parameters { key: "enable_mem_arena" value { string_value: "2" } }', 1, "'2' is neither 0 nor 1"),
        ("model_warmup { batch_size: 1 }", 1, "warm-up 'number 1' has no inputs"),
    ],
)
def test_what_is_wrong_or_would_change_answers_is_an_error_with_its_line(
    text: str, line: int, message: str, tmp_path: Path
) -> None:
    reading = read(tmp_path, text)
    errors = [notice for notice in reading.notices if notice.severity == "error"]
    assert (line, True) in [(notice.line, message in notice.message) for notice in errors], errors
    assert not reading.usable


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        ("batch_size: 0", "batch_size must be from 1 to 2"),
        ("batch_size: 3", "batch_size must be from 1 to 2"),
        ("batch_size: 1 count: 10001", "10001 runs are more than 10000"),
        ("batch_size: 1 inputs { key: 'x' value { dims: 1 zero_data: true } }", "has no data_type"),
        (
            "batch_size: 1 inputs { key: 'x' value { data_type: TYPE_BOOL dims: -1 zero_data: true } }",
            "is no shape",
        ),
        ("batch_size: 1 inputs { key: 'x' value { data_type: TYPE_BOOL dims: 1 } }", "has no data"),
    ],
)
def test_a_warmup_that_cannot_be_made(sample: str, message: str, tmp_path: Path) -> None:
    reading = read(tmp_path, f"max_batch_size: 2 model_warmup {{ name: 'w' {sample} }}")
    assert any(message in notice.message for notice in reading.notices)


def test_everything_wrong_with_a_file_is_said_at_once_and_in_order(tmp_path: Path) -> None:
    text = 'foo: 1\nbackend: "python"\ninstance_group { kind: KIND_GPU }\nsequence_batching { }\nmax_batch_size: x'
    notices = read(tmp_path, text).notices
    assert [(notice.line, notice.severity) for notice in notices] == [
        (1, "error"),
        (2, "error"),
        (3, "warning"),
        (4, "error"),
        (5, "error"),
    ]


@pytest.mark.parametrize(("count", "refused"), [(500, False), (501, True)])
def test_a_configuration_goes_to_a_worker_in_one_message(count: int, refused: bool, tmp_path: Path) -> None:
    lines = (f"input {{ name: 'a tensor of some name {n}' dims: [ 4, 4 ] }}\n" for n in range(count))
    reading = read(tmp_path, "".join(lines))
    assert [(notice.line, notice.field) for notice in reading.notices] == ([(1, "input")] if refused else [])
    assert len(lane_config(reading)) < MAX_MESSAGE_BYTES


def lane_config(reading: Reading) -> bytes:
    lane = config(inputs=reading.config.inputs)
    return msgspec.msgpack.Encoder(enc_hook=str).encode(AddLanes(lanes=[lane]))
