"""The readers of files that people write, and of commands that stand for them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

from predictd.server.config.errors import ConfigError
from predictd.server.config.model_config import ModelConfigError
from predictd.server.config.model_file import read_model_file
from predictd.server.config.resolve import resolve
from predictd.server.errors import InvalidRequestError
from predictd.server.repository.config_pbtxt import read_config_pbtxt
from predictd.server.repository.override import read_override
from predictd.server.repository.tfs_config import read_tfs_config
from tests.fixtures.triton_repositories import IMAGE_CLASSIFIER, TEXT_MODEL, TWO_INSTANCES
from tests.fuzz.target import Target

MODEL_TOML = """\
engine = "onnxruntime"   # a comment
max_batch_size = 16
max_delay = "1.5ms"
preferred_batch_sizes = [4, 8]
version_policy = { latest = 2 }
priority_levels = 2
warmup = { mode = "zeros" }
device = "cpu"

[priority_queues.1]
max_queue_size = 10
timeout_action = "delay"

[labels]
stable = 1

[inputs.x]
dtype = "FP32"
shape = [-1, 3]

[outputs.'a "quoted" one']
labels_file = "labels.txt"

[parameters]
graph_optimization_level = "all"
count = 1
"""
PREDICTD_TOML = """\
paths = ["models", "/srv/other.onnx"]
grpc = "127.0.0.1:8001"
max_message_size = "64MiB"
max_delay = "500us"
frontends = 2
instances = "auto"
strict = true
request_log = "5/s"
load_model = []
arena_limit = "1GiB"
"""
MODELS_CONFIG = """\
model_config_list {
  config {
    name: "resnet"
    base_path: "/models/resnet"
    model_platform: "tensorflow"
    model_version_policy { specific { versions: 1 versions: 2 } }
    version_labels { key: "stable" value: 1 }
  }
  config: { name: "other", base_path: 'other\\x41\\101' }
}
"""
OVERRIDE = {
    "name": "m",
    "max_batch_size": 8,
    "dynamic_batching": {"max_queue_delay_microseconds": 100},
    "instance_group": [{"count": 2, "kind": "KIND_CPU"}],
    "version_policy": {"specific": {"versions": [1, 2]}},
}
_folder = tempfile.TemporaryDirectory(prefix="predictd-fuzz-")


def _file(name: str, read: Callable[[Path], object]) -> Callable[[bytes], object]:
    path = Path(_folder.name) / name

    def run(data: bytes) -> object:
        path.write_bytes(data)
        try:
            return read(path)
        except (ConfigError, ModelConfigError) as error:
            if "\n" in str(error):
                raise TypeError(f"more than one line: {error}") from error
            raise

    return run


def _words(*texts: str) -> tuple[bytes, ...]:
    return tuple(word.encode() for text in texts for word in text.split())


TARGETS = (
    Target(
        "model_toml",
        _file("model.toml", read_model_file),
        [MODEL_TOML.encode()],
        (ModelConfigError,),
        _words(MODEL_TOML, "threads run_timeout [[ ]] ''' \"\"\" 0x1 1979-05-27 inf"),
        binary=False,
        share=0.25,
    ),
    Target(
        "predictd_toml",
        _file("predictd.toml", lambda path: resolve({"config": str(path)}, {})),
        [PREDICTD_TOML.encode()],
        (ConfigError,),
        _words(PREDICTD_TOML),
        binary=False,
        share=0.25,
    ),
    Target(
        "config_pbtxt",
        _file("config.pbtxt", read_config_pbtxt),
        [text.encode() for text in (IMAGE_CLASSIFIER, TEXT_MODEL, TWO_INSTANCES)],
        (ModelConfigError,),
        _words(IMAGE_CLASSIFIER, TWO_INSTANCES, "ensemble_scheduling sequence_batching KIND_GPU TYPE_BF16"),
        binary=False,
        share=0.25,
    ),
    Target(
        "models_config",
        _file("models.config", read_tfs_config),
        [MODELS_CONFIG.encode()],
        (ModelConfigError,),
        _words(MODELS_CONFIG),
        binary=False,
        share=0.25,
    ),
    Target(
        "override",
        lambda data: read_override(data.decode(errors="replace"), "m"),
        [json.dumps(OVERRIDE).encode()],
        (InvalidRequestError,),
        _words(json.dumps(OVERRIDE), "null true NaN Infinity"),
        binary=False,
        share=0.25,
    ),
)
