from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from predictd.client import Label, Model, ModelVersion, Prediction, Setting, Split, TensorSpec, Timing
from predictd.server.cli import show

SIGNATURE = {
    "engine": "onnxruntime",
    "inputs": (TensorSpec("x", "FP32", (-1, 3)), TensorSpec("mask", "BOOL", (), optional=True)),
    "outputs": (TensorSpec("y", "INT64", (-1,)),),
}
READY: dict[str, Any] = {
    "state": "READY",
    "reason": "",
    "max_batch_size": 32,
    "labels": ("stable",),
    **SIGNATURE,
}
FAILED: dict[str, Any] = {
    "state": "FAILED",
    "reason": "model.onnx: not a model",
    "engine": "",
    "inputs": (),
    "outputs": (),
    "max_batch_size": 0,
    "labels": (),
}
MODELS = (
    Model("classifier", (ModelVersion(version=12, **READY), ModelVersion(version=9, **READY)), 12),
    Model("bad", (ModelVersion(version=1, **FAILED),), 0),
)


def predicted(dtype: str, array: Any) -> Prediction:
    return Prediction({"y": np.asarray(array)}, {"y": dtype}, "m", 2, Timing(0.0000123, 0.00456, 4))


def test_models_are_a_table() -> None:
    signature = "x FP32 [?, 3], mask BOOL [] optional → y INT64 [?]"
    assert show.models_text(MODELS).splitlines() == [
        "NAME        VERSION      STATE   ENGINE       BATCH  INPUTS → OUTPUTS",
        f"classifier  12 (stable)  READY   onnxruntime  32     {signature}",
        f"classifier  9 (stable)   READY   onnxruntime  32     {signature}",
        "bad         1            FAILED  -            -      model.onnx: not a model",
    ]


def test_labels_and_splits_stand_below_the_table_with_where_they_came_from() -> None:
    labels = (
        Label("canary", 12, "RUN_TIME", 13),
        Label("gone", 7, "RUN_TIME"),
        Label("stable", 9, "CONFIGURATION"),
    )
    versions = (ModelVersion(version=12, **READY), ModelVersion(version=9, **READY))
    model = Model("classifier", versions, 12, labels, Split({12: 90, 9: 10}, "RUN_TIME"))
    assert show.models_text((model, MODELS[1])).splitlines()[4:] == [
        "classifier: label canary is version 12, and is 13 once that is ready (set by: run time)",
        "classifier: label gone is version 7, which is not there (set by: run time)",
        "classifier: label stable is version 9 (set by: configuration)",
        "classifier: split 12=90% 9=10% (set by: run time)",
    ]
    (data,) = json.loads(json.dumps(show.models_data((model,))))
    assert data["labels"][:2] == [
        {"name": "canary", "version": 12, "set_by": "RUN_TIME", "next_version": 13},
        {"name": "gone", "version": 7, "set_by": "RUN_TIME", "next_version": None},
    ]
    assert data["split"] == {
        "shares": [{"version": 12, "percent": 90}, {"version": 9, "percent": 10}],
        "set_by": "RUN_TIME",
    }


def test_no_models_are_said_so() -> None:
    assert show.models_text(()) == "The daemon serves no models."


def test_models_are_json() -> None:
    good, bad = json.loads(json.dumps(show.models_data(MODELS)))
    assert (good["name"], good["default_version"]) == ("classifier", 12)
    assert (good["labels"], good["split"]) == ([], None)
    assert [version["version"] for version in good["versions"]] == [12, 9]
    assert good["versions"][0]["labels"] == ["stable"]
    assert good["versions"][0]["inputs"] == [
        {"name": "x", "dtype": "FP32", "shape": [-1, 3], "optional": False},
        {"name": "mask", "dtype": "BOOL", "shape": [], "optional": True},
    ]
    assert bad["versions"][0]["reason"] == "model.onnx: not a model"


def test_a_prediction_tells_version_times_and_values() -> None:
    assert show.prediction_text(predicted("FP32", [[1.5, 2.5]])).splitlines() == [
        "m version 2: queue 12.3 us, compute 4.56 ms, in a batch of 4",
        "y FP32 [1, 2]",
        "  [[1.5, 2.5]]",
    ]


def test_a_model_that_does_not_batch_has_no_batch() -> None:
    prediction = Prediction({}, {}, "m", 2, Timing(2.5, 0.0, 0))
    assert show.prediction_text(prediction) == "m version 2: queue 2.5 s, compute 0 us"


def test_many_values_are_abbreviated() -> None:
    text = show.prediction_text(predicted("INT64", np.arange(100_000)))
    assert "99999" in text
    assert "..." in text
    assert len(text) < 200


def test_bf16_is_shown_as_numbers() -> None:
    assert show.prediction_text(predicted("BF16", np.array([0x3FC0], np.uint16))).endswith("  [1.5]")
    assert show.prediction_data(predicted("BF16", np.array([0x3FC0], np.uint16)))["outputs"][0]["data"] == [
        1.5
    ]


def test_json_leaves_nothing_out() -> None:
    data = json.loads(json.dumps(show.prediction_data(predicted("INT64", np.arange(1000).reshape(10, 100)))))
    assert data["model"] == "m"
    assert data["version"] == 2
    assert data["timing"] == {"queue_seconds": 0.0000123, "compute_seconds": 0.00456, "batch_rows": 4}
    (output,) = data["outputs"]
    assert (output["name"], output["dtype"], output["shape"]) == ("y", "INT64", [10, 100])
    assert output["data"] == np.arange(1000).reshape(10, 100).tolist()


def test_json_has_no_number_that_json_has_not() -> None:
    data = show.prediction_data(predicted("FP32", [[np.nan, 1], [np.inf, -np.inf]]))
    text = json.dumps(data, allow_nan=False)
    assert json.loads(text)["outputs"][0]["data"] == [["NaN", 1.0], ["Infinity", "-Infinity"]]


@pytest.mark.parametrize(
    ("values", "encoding", "expected"),
    [
        ([[b"a"], ["né".encode()]], "utf-8", [["a"], ["né"]]),
        ([[b"a"], [b"\xff"]], "base64", [["YQ=="], ["/w=="]]),
        (b"a", "utf-8", "a"),
        ([], "utf-8", []),
    ],
)
def test_strings_are_text_where_all_are(values: Any, encoding: str, expected: Any) -> None:
    data = show.prediction_data(predicted("BYTES", np.array(values, object)))
    assert data["outputs"][0]["encoding"] == encoding
    assert data["outputs"][0]["data"] == expected


def test_what_somebody_set_stands_below_the_table_with_its_place() -> None:
    settings = (
        Setting("max_batch_size", "8", "model.toml:1"),
        Setting("max_delay", "2ms", "--max-delay"),
        Setting("threads", "2", "plan"),
        Setting("swap", "availability", "default"),
    )
    old = {**READY, "reason": "the old content serves on, as the new one failed: cut short"}
    model = Model("m", (ModelVersion(version=1, **old),), 1, settings=settings)
    assert show.models_text((model,)).splitlines()[2:] == [
        "m: version 1: the old content serves on, as the new one failed: cut short",
        "m: max_batch_size 8 (model.toml:1), max_delay 2ms (--max-delay)",
    ]
    (data,) = show.models_data((model,))
    assert data["settings"][2] == {"name": "threads", "value": "2", "origin": "plan"}
