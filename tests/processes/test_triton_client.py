"""Triton's unchanged client against a real daemon. It runs in processes of its own: its symbols are those of ours."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from predictd.engines.api import DType
from tests.fixtures import models
from tests.fixtures.daemon import REPOSITORY, Daemon, running

SCRIPTS = REPOSITORY / "tests" / "fixtures"
SCRIPT_SECONDS = 100
DTYPES = (DType.FP32, DType.INT64, DType.BOOL, DType.FP16, DType.BF16, DType.BYTES)
MODELS = (*(dtype.name for dtype in DTYPES), "broken", "gather", "nonzero", "simple", "slow")
SLOW = """
engine = "tests.fixtures.faulty_engine:load"
pool = "slow"
[parameters]
block_seconds = 1
"""

SHAPE = "(-1: any size)"
# What each case of triton_errors.py meets: the status and the message, in which * stands for anything.
WRONG: dict[str, tuple[str, str]] = {
    "shape": ("INVALID_ARGUMENT", f"input 'x' of model 'FP32' has shape [1, 5]; expected [-1, 4] {SHAPE}"),
    "rank": ("INVALID_ARGUMENT", f"input 'x' of model 'FP32' has shape [1, 4, 1]; expected [-1, 4] {SHAPE}"),
    "dtype": ("INVALID_ARGUMENT", "input 'x' of model 'FP32' has type FP64; expected FP32"),
    "unknown dtype": ("INVALID_ARGUMENT", "input 'x' has an unknown datatype: 'FP8'"),
    "byte size": ("INVALID_ARGUMENT", "input 'x' of model 'FP32' carries 15 bytes; FP32[1, 4] takes 16"),
    "too few raw": ("INVALID_ARGUMENT", "expected 2 raw_input_contents, one for each input, and 1 came"),
    "too many raw": ("INVALID_ARGUMENT", "expected 1 raw_input_contents, one for each input, and 2 came"),
    "nothing": ("INVALID_ARGUMENT", "input 'x': shape [1, 4] does not fit 0 elements of fp32_contents"),
    "missing": ("INVALID_ARGUMENT", "input 'INPUT1' of model 'simple' is missing; expected INT32[-1, 16]"),
    "unknown input": (
        "INVALID_ARGUMENT",
        "unexpected input 'x' for model 'simple'; it takes 'INPUT0', 'INPUT1'",
    ),
    "duplicated": ("INVALID_ARGUMENT", "input 'x' of model 'FP32' is given twice"),
    "rows differ": (
        "INVALID_ARGUMENT",
        "the inputs of model 'simple' have different rows: 'INPUT0' has 1, 'INPUT1' has 2",
    ),
    "too many rows": (
        "INVALID_ARGUMENT",
        "input 'x' of model 'FP32' has 101 rows; a request may have 100 (max_request_rows)",
    ),
    "too large": ("RESOURCE_EXHAUSTED", "SERVER: Received message larger than max (* vs. 1048576)"),
    "raw and typed": (
        "INVALID_ARGUMENT",
        "input 'x': contents must not be specified when using raw_input_contents",
    ),
    "malformed BYTES": (
        "INVALID_ARGUMENT",
        "input 'x' of model 'BYTES' is not 4 length-prefixed elements in 6 bytes; shape [1, 4]",
    ),
    "BYTES not UTF-8": (
        "INVALID_ARGUMENT",
        "model 'BYTES' cannot run on these inputs: input 'x': element 0 is not UTF-8",
    ),
    "index": ("INVALID_ARGUMENT", "model 'gather' cannot run on these inputs: *idx=3*"),
    "no model": ("INVALID_ARGUMENT", "the request names no model"),
    "unknown model": ("NOT_FOUND", "model 'nobody' is not known"),
    "unknown version": ("NOT_FOUND", "model 'FP32' has no version 7 (versions: 1)"),
    "malformed version": ("INVALID_ARGUMENT", "a model version must be a positive number, not 'latest'"),
    "failed model": ("UNAVAILABLE", "version 1 of model 'broken' failed to load; *"),
    "unknown output": ("INVALID_ARGUMENT", "unknown output 'z' of model 'FP32'; it gives 'y'"),
    "metadata of nobody": ("NOT_FOUND", "model 'nobody' is not known"),
    "config of nobody": ("NOT_FOUND", "model 'nobody' is not known"),
    "statistics of nobody": ("NOT_FOUND", "model 'nobody' is not known"),
    "statistics of a version": ("NOT_FOUND", "model 'FP32' has no version 7"),
    "readiness of nobody": ("NOT_FOUND", "model 'nobody' is not known"),
    "classification": ("INVALID_ARGUMENT", "output 'y' is BYTES: only numbers have classes"),
    "negative classification": (
        "INVALID_ARGUMENT",
        "output 'y': parameter 'classification' must be at least 1, not -1",
    ),
    "shared memory": ("UNIMPLEMENTED", "input 'x': parameter 'shared_memory_*' is not supported"),
    "sequence": (
        "UNIMPLEMENTED",
        "parameter 'sequence_*' is not supported: predictd has no sequence batching",
    ),
    "reserved parameter": (
        "INVALID_ARGUMENT",
        "unknown parameter 'triton_future': names that begin with 'triton_' are reserved",
    ),
    "typed priority": (
        "INVALID_ARGUMENT",
        "parameter 'priority' must be sent as int64_param or uint64_param, not as string_param",
    ),
    "negative timeout": ("INVALID_ARGUMENT", "parameter 'timeout' must not be negative, not -1"),
    "system shared memory": ("UNIMPLEMENTED", "Method not found!"),
    "cuda shared memory": ("UNIMPLEMENTED", "Method not found!"),
    "trace": ("UNIMPLEMENTED", "Method not found!"),
    "log": ("UNIMPLEMENTED", "log setting 'log_file' cannot be changed: the log goes to standard error"),
    "load": ("NOT_FOUND", "there is no model 'nobody' in the paths that the daemon serves"),
    "unload": ("UNAVAILABLE", "model 'FP32' cannot be unloaded by command: *--model-control explicit"),
    "client_timeout": ("DEADLINE_EXCEEDED", "Deadline Exceeded"),
    "timeout": ("DEADLINE_EXCEEDED", "the request's time-out of 100000 µs passed"),
}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    root = tmp_path_factory.mktemp("triton")
    repository = root / "models"
    (repository / "slow").mkdir(parents=True)
    (repository / "slow" / "model.toml").write_text(SLOW)
    for dtype in DTYPES:
        models.identity(repository / f"{dtype.name}.onnx", dtype, ("batch", 4))
    models.add_sub(repository / "simple.onnx")
    models.nonzero(repository / "nonzero.onnx")
    models.gather_out_of_bounds(repository / "gather.onnx")
    (repository / "broken.onnx").write_bytes(b"no model")
    limits = ("--max-request-rows", "100", "--max-message-size", "1MiB", "--max-batch-size", "32")
    with running(repository, *limits, folder=root / "run") as daemon:
        yield daemon


def told(script: str, daemon: Daemon) -> dict[str, Any]:
    """What a script prints."""
    finished = subprocess.run(
        [sys.executable, SCRIPTS / script, daemon.grpc],
        check=True,
        stdout=subprocess.PIPE,
        timeout=SCRIPT_SECONDS,
    )
    facts: dict[str, Any] = json.loads(finished.stdout)
    return facts


@pytest.fixture(scope="module")
def tour(daemon: Daemon) -> dict[str, Any]:
    return told("triton_tour.py", daemon)


@pytest.fixture(scope="module")
def aio_tour(daemon: Daemon) -> dict[str, Any]:
    return told("triton_aio_tour.py", daemon)


@pytest.fixture(scope="module")
def errors(daemon: Daemon) -> dict[str, list[Any]]:
    return told("triton_errors.py", daemon)


# The blocking client ------------------------------------------------------------------------------------


def test_the_server_is_live_and_ready_and_says_what_it_is(tour: dict[str, Any]) -> None:
    about = tour["about"]
    assert (about["live"], about["ready"]) == (True, True)
    assert about["server"]["name"] == "predictd"
    assert about["server"]["extensions"] == [
        "classification",
        "schedule_policy",
        "model_configuration",
        "statistics",
        "model_repository",
        "model_repository(unload_dependents)",
        "logging",
    ]


def test_models_are_ready_or_not(tour: dict[str, Any]) -> None:
    assert tour["about"]["model_ready"] == [True, True, False]
    states = {model["name"]: model["state"] for model in tour["about"]["index"]}
    assert states == dict.fromkeys(MODELS, "READY") | {"broken": "UNAVAILABLE"}
    (broken,) = (model for model in tour["about"]["index"] if model["name"] == "broken")
    assert broken["reason"]


def test_metadata_has_names_dtypes_and_whole_shapes(tour: dict[str, Any]) -> None:
    metadata = tour["about"]["metadata"]

    def of(name: str, datatype: str, *shape: str) -> dict[str, Any]:
        return {"name": name, "datatype": datatype, "shape": list(shape)}

    assert metadata["simple"] == {
        "name": "simple",
        "versions": ["1"],
        "platform": "onnxruntime_onnx",
        "inputs": [of(name, "INT32", "-1", "16") for name in ("INPUT0", "INPUT1")],
        "outputs": [of(name, "INT32", "-1", "16") for name in ("OUTPUT0", "OUTPUT1")],
    }
    assert metadata["BYTES"]["inputs"] == [of("x", "BYTES", "-1", "4")]
    assert metadata["nonzero"]["outputs"] == [of("y", "INT64", "-1", "2")]


def test_the_configuration_leaves_the_batch_dimension_out(tour: dict[str, Any]) -> None:
    config = tour["about"]["config"]
    assert config["simple"]["max_batch_size"] == 32
    assert config["simple"]["input"][0] == {"name": "INPUT0", "data_type": "TYPE_INT32", "dims": ["16"]}
    assert "dynamic_batching" in config["simple"]
    assert config["BYTES"]["output"] == [{"name": "y", "data_type": "TYPE_STRING", "dims": ["4"]}]
    assert "max_batch_size" not in config["nonzero"] and "dynamic_batching" not in config["nonzero"]
    assert config["nonzero"]["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": ["-1", "4"]}]


def test_every_dtype_comes_back_as_numpy_sent_it(tour: dict[str, Any]) -> None:
    ways = ("infer", "version", "gzip", "empty", "async_infer")
    assert tour["echoes"] == {f"{dtype.name} {way}": True for dtype in DTYPES for way in ways}


def test_outputs_options_and_ids_are_honoured(tour: dict[str, Any]) -> None:
    assert tour["simple"]["both"] == [True, True]
    assert tour["simple"]["answer"] == ["simple", "1", "my id"]
    assert tour["simple"]["one"] == [True, True]
    assert tour["simple"]["custom"] is True


def test_a_hundred_rows_are_answered_where_batches_have_32(tour: dict[str, Any]) -> None:
    assert tour["simple"]["rows"] == [True, True]


def test_threads_may_share_a_client(tour: dict[str, Any]) -> None:
    assert tour["threads"] == 160


def test_a_stream_answers_in_order_and_past_an_error(tour: dict[str, Any]) -> None:
    answered = [[str(n), True] for n in range(len(DTYPES))]
    assert tour["stream"] == [*answered, ["model 'nobody' is not known"], ["", True]]


def test_statistics_count_what_was_asked(tour: dict[str, Any]) -> None:
    """Three requests of one row and one of a hundred."""
    (simple,) = tour["statistics"]
    assert (simple["name"], simple["version"]) == ("simple", "1")
    assert (simple["inference_count"], simple["execution_count"]) == ("103", "4")
    assert simple["inference_stats"]["fail"] == {}
    for duration in ("success", "queue", "compute_infer"):
        assert simple["inference_stats"][duration]["count"] == "4"
        assert int(simple["inference_stats"][duration]["ns"]) > 0
    assert {batch["batch_size"]: batch["compute_infer"]["count"] for batch in simple["batch_stats"]} == {
        "1": "3",
        "100": "1",
    }
    assert tour["all statistics"] == sorted(MODELS)


# The asyncio client -------------------------------------------------------------------------------------


def test_the_asyncio_client_learns_the_same(aio_tour: dict[str, Any], tour: dict[str, Any]) -> None:
    assert (aio_tour["live"], aio_tour["ready"], aio_tour["server"]) == (True, True, "predictd")
    assert aio_tour["model_ready"] == [True, False]
    assert aio_tour["metadata"] == tour["about"]["metadata"]["simple"]["inputs"]
    assert (aio_tour["config"], aio_tour["index"]) == (32, len(MODELS))
    assert aio_tour["statistics"] > 0


def test_two_hundred_callers_at_once_each_get_their_own_answer(aio_tour: dict[str, Any]) -> None:
    assert aio_tour["right"] == 200


def test_the_asyncio_client_streams_in_order_and_past_an_error(aio_tour: dict[str, Any]) -> None:
    assert aio_tour["stream"] == [*[True] * 101, "model 'nobody' is not known", *[True] * 99]


def test_a_call_that_is_given_up_leaves_nothing_in_flight(aio_tour: dict[str, Any], daemon: Daemon) -> None:
    assert aio_tour["given_up"]
    daemon.wait_until(lambda: daemon.metric("predictd_in_flight") == 0, 20, "idle")


# What is wrong ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_has_its_status_and_its_reason(errors: dict[str, list[Any]], case: str) -> None:
    expected_status, expected = WRONG[case]
    status, message, still_answers = errors[case]
    assert status == expected_status
    assert re.fullmatch(re.escape(expected).replace(r"\*", ".*"), message), message
    assert still_answers


def test_every_wrong_case_is_looked_at(errors: dict[str, list[Any]]) -> None:
    assert set(errors) == set(WRONG)
