"""TensorFlow Serving's `models.config`: which models there are, where, and which versions of them to serve."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from predictd.server.config.model_config import (
    ModelConfig,
    Notice,
    Origin,
    check_label,
)
from predictd.server.repository.policy_text import VERSION_POLICY, read_policy
from predictd.server.repository.protoschema import (
    INT64,
    OPAQUE,
    STRING,
    Notes,
    Record,
    Schema,
    decode,
    enumeration,
    many,
    mapping,
    one,
)
from predictd.server.repository.textproto import parse_file

SUFFIX = ".config"

_MODEL = Schema(
    {
        "name": one(STRING),
        "base_path": one(STRING),
        "model_type": one(enumeration(MODEL_TYPE_UNSPECIFIED=0, TENSORFLOW=1, OTHER=2)),
        "model_platform": one(STRING),
        "model_version_policy": one(VERSION_POLICY),
        "version_labels": mapping(STRING, INT64),
        "logging_config": one(OPAQUE),
    }
)
_SERVER = Schema(
    {
        "model_config_list": one(Schema({"config": many(_MODEL)})),
        "custom_model_config": one(OPAQUE),
    },
    oneofs=(("model_config_list", "custom_model_config"),),
)
# Every file written for TensorFlow Serving says "tensorflow"; what counts is what lies in the folder.
_PLATFORMS = frozenset({"", "tensorflow", "onnx", "onnxruntime"})


@dataclass(frozen=True, slots=True)
class TfsModel:
    """A model of the list.

    Attributes:
        name: What clients call it.
        base_path: The folder of its versions.
        line: Where it begins in the file.
        config: Its version policy and labels.
    """

    name: str
    base_path: Path
    line: int
    config: ModelConfig


@dataclass(frozen=True, slots=True)
class TfsConfig:
    """What a models.config says.

    Attributes:
        models: Those without errors, in order.
        notices: In the order of the file.
    """

    models: tuple[TfsModel, ...]
    notices: tuple[Notice, ...]


def read_tfs_config(path: Path) -> TfsConfig:
    """Read a models.config.

    Raises:
        ModelConfigError: The file cannot be read or is not text format.
    """
    notes = Notes()
    record = decode(parse_file(path), _SERVER, notes)
    if "custom_model_config" in record:
        line = record.line_of("custom_model_config")
        notes.error(line, "custom_model_config", "no source of models is built in", "use model_config_list")
    models = record.record("model_config_list")
    records = models.records("config") if models else ()
    if not records and not notes.notices:
        notes.error(1, "model_config_list", "no model here", "add model_config_list { config { ... } }")
    return TfsConfig(tuple(_models(path, records, notes)), notes.in_order())


def _models(path: Path, records: tuple[Record, ...], notes: Notes) -> Iterator[TfsModel]:
    names: set[str] = set()
    for record in records:
        before = notes.errors
        name, base_path = record.text("name"), record.text("base_path")
        if not name:
            notes.error(record.line, "config.name", "a model without a name", "add name")
        elif name in names:
            message = f"a model called {name!r} is there already"
            notes.error(record.line_of("name"), "config.name", message, "rename one")
        if not base_path:
            message = f"model {name!r} has no base_path"
            notes.error(record.line, "config.base_path", message, "add it: the folder of its versions")
        elif "://" in base_path or "\0" in base_path:
            message = f"base_path {base_path!r} is not a folder of this machine"
            notes.error(record.line_of("base_path"), "config.base_path", message, "copy or mount the models")
        names.add(name)
        config = _config(path, record, notes)
        # What the schema refused is left out already: such a model would not be the one that was meant.
        if record.sound and notes.errors == before:
            yield TfsModel(name, path.parent / base_path, record.line, config)


def _config(path: Path, record: Record, notes: Notes) -> ModelConfig:
    platform = record.text("model_platform")
    if platform not in _PLATFORMS:
        message = f"model_platform {platform!r} is not served here"
        remedy = "ONNX models are: write onnx, or leave it out"
        notes.error(record.line_of("model_platform"), "config.model_platform", message, remedy)
    if "logging_config" in record:
        message = "requests are not logged"
        notes.warn(record.line_of("logging_config"), "config.logging_config", message)
    labels = dict(_labels(record, notes))
    policy = read_policy(record.record("model_version_policy"), "config.model_version_policy", notes)
    origins = {}
    if policy is not None:
        origins["version_policy"] = Origin(path, record.line_of("model_version_policy"))
    if labels:
        origins["labels"] = Origin(path, record.line_of("version_labels"))
    return ModelConfig(version_policy=policy, labels=labels, origins=origins)


def _labels(record: Record, notes: Notes) -> Iterator[tuple[str, int]]:
    for entry in record.records("version_labels"):
        label, version = entry.text("key"), entry.whole("value")
        try:
            check_label(label)
        except ValueError as error:
            notes.error(entry.line, "config.version_labels", str(error))
        if version < 1:
            message = f"label {label!r}: there is no version {version}"
            notes.error(entry.line, "config.version_labels", message, "versions are numbers from 1")
        yield label, version
