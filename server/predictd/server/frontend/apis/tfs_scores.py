"""Classify and Regress of TensorFlow Serving's API: which models can, and what their output means."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from predictd.engines.api import DType
from predictd.protos.tfs import serving_pb2 as pb
from predictd.server.errors import InvalidRequestError
from predictd.server.frontend.apis.tfs_models import PREDICT_METHOD, served

if TYPE_CHECKING:
    from collections.abc import Sequence

    from predictd.server.frontend.inference import InferResponse, OutputTensor, TensorInfo, VersionInfo


Encode: TypeAlias = Callable[["InferResponse", int], bytes]


def classifying(version: VersionInfo) -> Encode:
    """How this version's answers are encoded, with its labels.

    Raises:
        InvalidRequestError: Its one output is not a score for each class of each example.
    """
    output = _single_float(version)
    if output is None or len(output.shape) != 2:
        raise InvalidRequestError(
            "Expected classification signature method_name to be tensorflow/serving/classify. "
            f"Was: {PREDICT_METHOD}"
        )
    return partial(encode_classification, labels=output.labels)


def regressing(version: VersionInfo) -> Encode:
    """How this version's answers are encoded.

    Raises:
        InvalidRequestError: Its one output is not a number for each example.
    """
    output = _single_float(version)
    if output is None or not (
        len(output.shape) == 1 or (len(output.shape) == 2 and output.shape[1] in (-1, 1))
    ):
        raise InvalidRequestError(
            f"Expected regression signature method_name to be tensorflow/serving/regress. Was: {PREDICT_METHOD}"
        )
    return encode_regression


def encode_classification(response: InferResponse, examples: int, labels: Sequence[str] = ()) -> bytes:
    """An answer as a ClassificationResponse's bytes; the label of a class without one is its index.

    Raises:
        InvalidRequestError: The output has not a row for each example.
    """
    (output,) = response.outputs
    if len(output.shape) != 2:
        raise InvalidRequestError(
            f"Expected Tensor shape: [batch_size num_classes] but got {list(output.shape)}"
        )
    if output.shape[0] != examples:
        raise InvalidRequestError(f"Expected scores output batch size of {examples}. Got: {output.shape[0]}")
    message = pb.ClassificationResponse()
    served(message.model_spec, response.model, response.version)
    classes_count = output.shape[1]
    names = [label or str(index) for index, label in enumerate(labels[:classes_count])]
    names += map(str, range(len(names), classes_count))
    for scores in _numbers(output).reshape(output.shape).tolist():
        classes = message.result.classifications.add().classes
        for label, score in zip(names, scores, strict=True):
            classes.add(label=label, score=score)
    return message.SerializeToString()


def encode_regression(response: InferResponse, examples: int) -> bytes:
    """An answer as a RegressionResponse's bytes.

    Raises:
        InvalidRequestError: The output has not one number for each example.
    """
    (output,) = response.outputs
    shape = output.shape
    if not (len(shape) == 1 or (len(shape) == 2 and shape[1] == 1)):
        raise InvalidRequestError(
            f"Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got {list(shape)}"
        )
    if shape[0] != examples:
        raise InvalidRequestError(
            f"Input batch size did not match output batch size: {examples} vs. {shape[0]}"
        )
    message = pb.RegressionResponse()
    served(message.model_spec, response.model, response.version)
    for value in _numbers(output).tolist():
        message.result.regressions.add(value=value)
    return message.SerializeToString()


def _single_float(version: VersionInfo) -> TensorInfo | None:
    if len(version.outputs) != 1 or version.outputs[0].dtype is not DType.FP32:
        return None
    return version.outputs[0]


def _numbers(output: OutputTensor) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return np.frombuffer(output.data, np.float32)
