"""Opening an ONNX Runtime session the way a daemon needs it: nothing implicit, every failure one line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as binding

from predictd.engines.api import EngineOptions, LoadCancelledError, ModelLoadError
from predictd.engines.onnxruntime import messages
from predictd.engines.onnxruntime.providers import CPU, PARAMETER, Provider, check_loaded, providers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from predictd.engines.cancellation import Cancellation

# They derive from Exception one by one, so a common base to catch does not exist.
ORT_ERRORS: tuple[type[Exception], ...] = (
    RuntimeError,
    *(value for value in vars(binding).values() if isinstance(value, type) and issubclass(value, Exception)),
)

# On quiet cores as fast as spinning all through a run, and more than twice as fast where something else runs on them
# (docs/tuning.md): the thread that is waited for gets its core back. ONNX Runtime before 1.26 does not know it.
SPIN_MICROSECONDS = "200"
SILENT = 4  # Log severity FATAL: errors come as exceptions, printed ones would be a second, uncontrolled log.

_LEVELS = {
    "disabled": onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
_SWITCH = {"true": True, "false": False}
# Parameter name, which is also the name of the session option, and its values.
_SESSION_PARAMETERS: Mapping[str, Mapping[str, Any]] = {
    "graph_optimization_level": _LEVELS,
    "enable_cpu_mem_arena": _SWITCH,
}
_SHARE_WEIGHTS = "share_weights"
_PARAMETERS: Mapping[str, Mapping[str, Any]] = {**_SESSION_PARAMETERS, _SHARE_WEIGHTS: _SWITCH}


def open_session(path: Path, options: EngineOptions, trace_prefix: str = "") -> Any:
    """Load a model file.

    Args:
        path: Of the file.
        options: The launcher's.
        trace_prefix: How the path of a file begins into which the time of each layer is written; empty for none.

    Raises:
        ModelLoadError: The file or the options are not usable.
    """
    settings = session_options(options)
    if trace_prefix:
        settings.enable_profiling = True
        settings.profile_file_prefix = trace_prefix
    _check_readable(path)
    return create_session(path, settings, options.cancel, providers(options))


def create_session(
    path: Path, settings: Any, cancel: Cancellation, asked: Sequence[Provider] = (CPU,)
) -> Any:
    """Load a file that can be read with these session options. Raises ModelLoadError."""
    try:
        # Looked at after each node and each pass over the graph.
        with cancel.calling(lambda: settings.set_load_cancellation_flag(True)):
            session = onnxruntime.InferenceSession(
                str(path),
                settings,
                providers=list(asked),
                # The launcher decides, not the model's metadata and not another provider.
                read_config_from_model=0,
                enable_fallback=0,
            )
    except binding.ModelLoadCanceled as error:
        raise LoadCancelledError("the load was given up") from error
    except ORT_ERRORS as error:
        raise ModelLoadError(messages.one_line(str(error))) from error
    check_loaded(session, asked)
    return session


def session_options(options: EngineOptions) -> Any:
    """Session options from the launcher's plan and the model's parameters."""
    if options.threads < 1:
        raise ModelLoadError(f"threads must be at least 1, not {options.threads}")
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = SILENT
    settings.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    # Explicit counts also keep ONNX Runtime from pinning its threads to CPUs of its own choice.
    settings.intra_op_num_threads = options.threads
    settings.inter_op_num_threads = 1
    if not options.spin:
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    elif options.threads > 1:
        settings.add_session_config_entry("session.force_spinning_stop", "1")
        settings.add_session_config_entry("session.intra_op.spin_duration_us", SPIN_MICROSECONDS)
    for name, text in options.parameters.items():
        if name == PARAMETER:
            continue
        value = _parameter(name, text)
        if name in _SESSION_PARAMETERS:
            setattr(settings, name, value)
    return settings


def shares_weights(options: EngineOptions) -> bool:
    """Whether workers of one model may share their weights. A GPU has a copy of its own."""
    return options.device == "cpu" and options.parameters.get(_SHARE_WEIGHTS, "true") == "true"


def _parameter(name: str, text: str) -> object:
    values = _PARAMETERS.get(name)
    if values is None:
        raise ModelLoadError(
            f"unknown parameter {name!r} of engine onnxruntime; known: {', '.join((*_PARAMETERS, PARAMETER))}"
        )
    if text not in values:
        raise ModelLoadError(f"parameter {name!r} must be one of {', '.join(values)}, not {text!r}")
    return values[text]


def _check_readable(path: Path) -> None:
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise ModelLoadError(error.strerror or str(error)) from error
