"""Triton's `config.pbtxt`: what it means to predictd.

What predictd does not do is a warning where that only costs speed or comfort, and an error where answers
would be other than Triton's. The file is not written for predictd, so nothing in it is silently ignored.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from predictd.server.config.model_config import (
    ModelConfig,
    Origin,
    Reading,
    Warmup,
    contradictions,
)
from predictd.server.config.units import suggestion
from predictd.server.repository.policy_text import read_policy
from predictd.server.repository.protoschema import Notes, Record, decode
from predictd.server.repository.textproto import parse_file
from predictd.server.repository.triton_batching import read_batching
from predictd.server.repository.triton_schema import MODEL_CONFIG
from predictd.server.repository.triton_tensors import TensorReader, WarmupReader, file_name

ONNX, OPENVINO, TENSORRT, TORCH = "onnxruntime", "openvino", "tensorrt", "torch"
# Names that may stand in platform or backend.
_ENGINES = {
    "onnxruntime": ONNX,
    "onnxruntime_onnx": ONNX,
    "openvino": OPENVINO,
    "tensorrt": TENSORRT,
    "tensorrt_plan": TENSORRT,
    "pytorch": TORCH,
    "pytorch_libtorch": TORCH,
}
_SUPPORTED = (
    'backend "onnxruntime" (platform "onnxruntime_onnx"), backend "openvino", backend "tensorrt" '
    '(platform "tensorrt_plan") and backend "pytorch" (platform "pytorch_libtorch")'
)
_SUFFIXES = {".onnx": ONNX, ".xml": OPENVINO, ".plan": TENSORRT, ".pt": TORCH, ".pt2": TORCH}
# What is loaded where no file is named; of other models the repository finds it out.
_DEFAULT_FILES = {TENSORRT: "model.plan", TORCH: "model.pt"}

# The same bound as in model.toml.
_MOST_COUNTED = 1024
_MOST_TENSORS = 500

_GRAPH_LEVELS = {-1: "basic", 0: "all", 1: "extended", 2: "disabled"}
# The parameter of each engine that says how many threads a run has.
_THREADS = {
    ONNX: "intra_op_thread_count",
    OPENVINO: "INFERENCE_NUM_THREADS",
    TORCH: "INTRA_OP_THREAD_COUNT",
}
_SWITCH = {"0": "false", "1": "true"}


def read_config_pbtxt(path: Path, name: str | None = None) -> Reading:
    """Read a config.pbtxt.

    Args:
        path: The file, in the model's folder.
        name: What the model is called; the file may not say otherwise.

    Raises:
        ModelConfigError: The file cannot be read or is not text format.
    """
    notes = Notes()
    record = decode(parse_file(path), MODEL_CONFIG, notes)
    return _Reader(path, record, notes).read(name)


@dataclass(slots=True)
class _Reader:
    path: Path
    record: Record
    notes: Notes
    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, Origin] = field(default_factory=dict)

    def read(self, name: str | None) -> Reading:
        self._name(name)
        self._engine()
        self._files()
        self._batch_size()
        self._refused()
        self._unused()
        self._tensors()
        self._batching()
        self._instances()
        self._policy()
        self._optimization()
        self._parameters()
        self._warmup()
        self._bound()
        config = ModelConfig(**self.values, origins=self.origins)
        lines = {
            "preferred_batch_sizes": self._batcher.line_of("preferred_batch_size"),
            "default_priority": self._batcher.line_of("default_priority_level"),
            "priority_queues": self._batcher.line_of("priority_queue_policy"),
        }
        for notice in contradictions(config):
            self.notes.notices.append(replace(notice, line=lines[notice.field]))
        return Reading(config, self.notes.in_order())

    @property
    def _batcher(self) -> Record:
        return self.record.record("dynamic_batching") or Record(self.record.line)

    @property
    def _max_batch_size(self) -> int:
        return max(0, self.record.whole("max_batch_size"))

    @property
    def _tensorrt(self) -> bool:
        return self.values.get("engine") == TENSORRT

    @property
    def _onnx(self) -> bool:
        return bool(self.values.get("engine", ONNX) == ONNX)

    def _set(self, name: str, value: object, line: int) -> None:
        self.values[name] = value
        self.origins[name] = Origin(self.path, line)

    def _name(self, name: str | None) -> None:
        said = self.record.text("name")
        if said and name is not None and said != name:
            message = f"name is {said!r}, but the model is called {name!r}"
            self.notes.error(
                self.record.line_of("name"), "name", message, "rename the folder, or remove name"
            )

    def _engine(self) -> None:
        said: set[str] = set()
        for key in ("platform", "backend"):
            value = self.record.text(key)
            if value in _ENGINES:
                said.add(_ENGINES[value])
                self._set("engine", _ENGINES[value], self.record.line_of(key))
            elif value:
                message = f"{key} {value!r} is not served here{suggestion(value, _ENGINES)}"
                self.notes.error(self.record.line_of(key), key, message, f"supported are {_SUPPORTED}")
        if len(said) > 1:
            self.notes.error(
                self.record.line_of("backend"), "backend", "platform and backend do not agree", "remove one"
            )

    def _files(self) -> None:
        name, line = file_name(self.record, "default_model_filename", self.notes), 1
        if name:
            line = self.record.line_of("default_model_filename")
            self._set("model_file", name, line)
        engine = _SUFFIXES.get(Path(name or "").suffix)
        unknown = not self.record.text("platform") and not self.record.text("backend")
        if unknown and engine is not None:
            self._set("engine", engine, line)
        elif unknown and name:
            message = f"neither platform nor backend says what {name!r} is"
            self.notes.error(line, "default_model_filename", message, f"add one; supported are {_SUPPORTED}")
        default = _DEFAULT_FILES.get(self.values.get("engine", ONNX))
        if default is not None and not name:
            self._set("model_file", default, self.record.line_of("backend"))
        self._files_by_capability()

    def _files_by_capability(self) -> None:
        entries = self.record.records("cc_model_filenames")
        if entries and not self._tensorrt:
            message = "cc_model_filenames is for GPUs; every instance loads the default file"
            self.notes.warn(entries[0].line, "cc_model_filenames", message)
        elif entries:
            named = {entry.text("key"): file_name(entry, "value", self.notes) for entry in entries}
            files = {capability: name for capability, name in named.items() if name}
            self._set("model_files_by_capability", files, entries[0].line)

    def _batch_size(self) -> None:
        if "max_batch_size" not in self.record:
            return
        rows, line = self.record.whole("max_batch_size"), self.record.line_of("max_batch_size")
        if rows < 0:
            self.notes.error(
                line, "max_batch_size", f"max_batch_size cannot be {rows}", "write 0 for no batching"
            )
        # 0 is Triton's word for a model that takes each request by itself.
        self._set("max_batch_size", max(1, rows), line)

    def _refused(self) -> None:
        for name, message, remedy in _REFUSED:
            if name in self.record:
                self.notes.error(self.record.line_of(name), name, message, remedy)
        operations = self.record.record("model_operations")
        if operations and operations.texts("op_library_filename"):
            line = operations.line_of("op_library_filename")
            message = "libraries of custom operators are not loaded"
            self.notes.error(line, "model_operations.op_library_filename", message, "export without them")
        policy = self.record.record("model_transaction_policy")
        if policy and policy.flag("decoupled"):
            message = "predictd gives exactly one answer to a request"
            self.notes.error(
                policy.line_of("decoupled"), "model_transaction_policy.decoupled", message, "remove it"
            )
        agents = self.record.record("model_repository_agents")
        for agent in agents.records("agents") if agents else ():
            place, name = "model_repository_agents.agents", agent.text("name")
            if name == "checksum":
                self.notes.warn(agent.line, place, "checksums of the model's files are not verified")
            else:
                message = f"repository agent {name!r}, which may change the model, is not run"
                self.notes.error(agent.line, place, message, "put the finished model here and remove it")

    def _unused(self) -> None:
        for name, message in _UNUSED:
            if name in self.record:
                self.notes.warn(self.record.line_of(name), name, message)
        cache = self.record.record("response_cache")
        if cache and cache.flag("enable"):
            message = "answers are not cached; every request is computed"
            self.notes.warn(cache.line_of("enable"), "response_cache.enable", message)

    def _tensors(self) -> None:
        reader = TensorReader(self.path.parent, self._max_batch_size > 0, self._tensorrt, self.notes)
        inputs = reader.tensors(self.record.records("input"), "input")
        outputs = reader.tensors(self.record.records("output"), "output")
        if inputs:
            self._set("inputs", inputs, self.record.line_of("input"))
        if outputs:
            self._set("outputs", outputs, self.record.line_of("output"))
            # As with Triton, what is left out of the list is not served.
            self._set("served_outputs", tuple(o.name for o in outputs), self.record.line_of("output"))

    def _batching(self) -> None:
        for name, value, line in read_batching(self._batcher, self.notes):
            self._set(name, value, line)

    def _instances(self) -> None:
        count = 0
        # In turn, as instances are placed: each GPU of a group has as many as the group says.
        devices: list[str] = []
        for group in self.record.records("instance_group"):
            place, said = "instance_group", group.whole("count")
            if said < 0:
                self.notes.error(group.line_of("count"), f"{place}.count", f"count cannot be {said}")
            if group.flag("passive"):
                message = "passive instances, which get no requests, are not started"
                self.notes.warn(group.line_of("passive"), f"{place}.passive", message)
                continue
            if group.text("kind") == "KIND_GPU" and not self._tensorrt:
                message = "KIND_GPU: this engine runs on the CPU here"
                self.notes.warn(group.line_of("kind"), f"{place}.kind", message)
            gpus = [str(gpu) for gpu in group.wholes("gpus")] if self._tensorrt else []
            for name, message in _UNUSED_OF_GROUPS:
                if name in group and not (name == "gpus" and self._tensorrt):
                    self.notes.warn(group.line_of(name), f"{place}.{name}", message)
            devices += gpus * min(max(1, said), _MOST_COUNTED)
            count += max(1, said) * len(gpus) if gpus else max(0, said)
        if devices:
            self._set("device", ",".join(devices), self.record.line_of("instance_group"))
        line = self.record.line_of("instance_group")
        if count > _MOST_COUNTED:
            message = f"{count} instances are more than {_MOST_COUNTED}"
            self.notes.error(line, "instance_group.count", message, "lower it")
        elif count:
            self._set("instances", count, line)

    def _policy(self) -> None:
        policy = read_policy(self.record.record("version_policy"), "version_policy", self.notes)
        if policy is not None:
            self._set("version_policy", policy, self.record.line_of("version_policy"))

    def _optimization(self) -> None:
        record = self.record.record("optimization")
        if record is None:
            return
        graph = record.record("graph")
        if graph and "level" in graph:
            level, line = graph.whole("level"), graph.line_of("level")
            if level not in _GRAPH_LEVELS:
                message = f"graph level {level} is unknown"
                self.notes.error(line, "optimization.graph.level", message, "write -1, 0, 1 or 2")
            elif self._onnx:
                self._parameter("graph_optimization_level", _GRAPH_LEVELS[level], line)
        for name, message in _UNUSED_OF_OPTIMIZATION:
            if name in record:
                self.notes.warn(record.line_of(name), f"optimization.{name}", message)

    def _parameters(self) -> None:
        said = {
            entry.text("key"): (value.text("string_value"), entry.line)
            for entry in self.record.records("parameters")
            if (value := entry.record("value")) is not None
        }
        for name, (text, line) in said.items():
            if name == _THREADS.get(self.values.get("engine", ONNX)):
                self._threads(name, text, line)
            elif not self._onnx:
                self._unused_parameter(name, line)
            elif name == "execution_mode" and text == "1":
                message = "execution_mode 1: operators run one after another; threads work inside each"
                self.notes.warn(line, f"parameters.{name}", message)
            elif name == "enable_mem_arena" and text in _SWITCH:
                self._parameter("enable_cpu_mem_arena", _SWITCH[text], line)
            elif name in ("execution_mode", "enable_mem_arena") and text not in _SWITCH:
                self.notes.error(line, f"parameters.{name}", f"{name} {text!r} is neither 0 nor 1")
            # Without parallel execution Triton ignores it, too.
            elif name not in ("execution_mode", "inter_op_thread_count"):
                self._unused_parameter(name, line)

    def _unused_parameter(self, name: str, line: int) -> None:
        self.notes.warn(line, f"parameters.{name}", f"parameter {name!r} is not used here")

    def _threads(self, name: str, text: str, line: int) -> None:
        if not text.isdecimal() or int(text[:9]) > _MOST_COUNTED:
            message = f"{name} {text!r} is not a number from 0 to {_MOST_COUNTED}"
            self.notes.error(line, f"parameters.{name}", message)
        elif int(text):
            self._set("threads", int(text), line)

    def _parameter(self, name: str, value: str, line: int) -> None:
        self._set("parameters", {**self.values.get("parameters", {}), name: value}, line)

    def _warmup(self) -> None:
        records = self.record.records("model_warmup")
        if records:
            samples = WarmupReader(self.path.parent, self._max_batch_size, self.notes).samples(records)
            self._set("warmup", Warmup(mode="samples", samples=samples), records[0].line)

    def _bound(self) -> None:
        """All of them go to a worker in one message."""
        warmup: Warmup | None = self.values.get("warmup")
        count = len(self.values.get("inputs", ())) + len(self.values.get("outputs", ()))
        count += sum(1 + len(sample.inputs) for sample in warmup.samples) if warmup else 0
        if count > _MOST_TENSORS:
            message = f"{count} inputs and outputs, those of warm-up included, are more than {_MOST_TENSORS}"
            self.notes.error(self.record.line_of("input"), "input", message, "use fewer warm-up requests")


# Answers would be other ones without these.
_REFUSED = (
    (
        "ensemble_scheduling",
        "ensembles are not served",
        "export the steps as one ONNX model, or call the models one after another",
    ),
    ("sequence_batching", "state is not kept between requests", "let clients send it along"),
    ("batch_input", "inputs about the batch are not made up", "let clients send them"),
    ("batch_output", "ragged outputs are not cut apart", "pad them"),
)
_UNUSED = (
    ("runtime", "predictd has one build of each engine"),
    ("metric_tags", "metrics carry the model and its version, and no further tags"),
    ("model_metrics", "the buckets of the histograms are the same for all models"),
)
_UNUSED_OF_GROUPS = (
    ("rate_limiter", "runs are not rationed; each instance takes work when it is free"),
    ("gpus", "this engine runs on the CPU here; model.toml's device places it"),
    ("secondary_devices", "there are no secondary devices"),
    ("profile", "TensorRT's optimization profile is chosen by the shapes of each batch"),
    ("host_policy", "CPUs and memory nodes are planned by predictd itself: see predictd plan"),
)
_UNUSED_OF_OPTIMIZATION = (
    ("priority", "no model goes before another on a GPU"),
    ("cuda", "CUDA graphs and streams are the engine's own choice"),
    ("execution_accelerators", "the model runs without an accelerator of ONNX Runtime"),
    ("input_pinned_memory", "has no effect: memory for copies to a GPU is the engine's own choice"),
    ("output_pinned_memory", "has no effect: memory for copies from a GPU is the engine's own choice"),
    ("gather_kernel_buffer_threshold", "batches are gathered in shared memory"),
    ("eager_batching", "the next batch is formed when an instance is free"),
)
