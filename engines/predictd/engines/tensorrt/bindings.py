"""The Python bindings of TensorRT 8.6, 10, 11 and TensorRT-RTX: where they are and what they can.

They differ by what they lack, so everybody else asks here for a feature and never for a version. Importing them
needs no GPU; whoever goes on to use the runtime asks `predictd.engines.tensorrt.cuda` first.
"""

from __future__ import annotations

import importlib
import re
import threading
from collections import deque
from dataclasses import dataclass
from typing import Any

from predictd.engines.api import EngineError

# Of each flavour the package that users install and, where its last layer is missing, the one below.
_MODULES = {
    "tensorrt": ("tensorrt", "tensorrt_bindings"),
    "tensorrt_rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings"),
}
_EXTRAS = {"tensorrt": "tensorrt", "tensorrt_rtx": "tensorrt-rtx"}
FLAVOURS = tuple(_MODULES)

_KEPT_LINES = 200
_SHOWN_LINES = 4
# "[model.cpp::operator()::1036] Error Code 4: Internal Error (text)" and its like.
_SOURCE = re.compile(r"\[[\w./]+::[^\]]*\]\s*")
_CODE = re.compile(r"^(?:\w+: )?(?:IExecutionContext::\w+: )?Error Code \d+: ")


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line that TensorRT wrote.

    Attributes:
        severity: `INTERNAL_ERROR`, `ERROR`, `WARNING`, `INFO` or `VERBOSE`.
        text: On one line.
    """

    severity: str
    text: str

    @property
    def is_error(self) -> bool:
        """Whether it tells why something failed."""
        return self.severity in ("INTERNAL_ERROR", "ERROR")


class Log:
    """What TensorRT said lately: its calls fail with None, False or -1, and the reason is here alone.

    Attributes:
        logger: What TensorRT's constructors take. It must live as long as they do, and so must this.
        count: Of all lines so far, roughly: a sign of life.
    """

    def __init__(self, trt: Any) -> None:
        self._lines: deque[LogLine] = deque(maxlen=_KEPT_LINES)
        # Apart, for what it says by the way must not push out why a call failed.
        self._told: deque[LogLine] = deque(maxlen=_KEPT_LINES)
        self._lock = threading.Lock()
        self.count = 0
        self.logger = _make_logger(trt, self)

    def add(self, line: LogLine) -> None:
        """Keep a line, unless it is of those that explain nothing; from any thread."""
        self.count += 1
        if line.severity == "VERBOSE":
            return
        with self._lock:
            self._lines.append(line)
            if line.severity != "INFO":
                self._told.append(line)

    def lines(self) -> tuple[LogLine, ...]:
        """What is kept, oldest first."""
        with self._lock:
            return tuple(self._lines)

    def clear(self) -> None:
        """Forget everything, before a call whose failure shall be explained."""
        with self._lock:
            self._lines.clear()
            self._told.clear()

    def reason(self) -> str:
        """Why the last call failed, on one line: TensorRT's errors since `clear`, without source positions."""
        with self._lock:
            told = list(self._told)
        told = [line for line in told if line.is_error] or told
        texts = dict.fromkeys(_CODE.sub("", _SOURCE.sub("", line.text)).strip() for line in told)
        return "; ".join(list(texts)[-_SHOWN_LINES:]).rstrip(" .") or "TensorRT gave no reason"


def _make_logger(trt: Any, log: Log) -> Any:
    class Logger(trt.ILogger):  # type: ignore[misc] # of a module that is known at run time only
        def __init__(self) -> None:
            # Not super(): TensorRT's classes demand their own constructor by name.
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            log.add(LogLine(str(getattr(severity, "name", severity)), " ".join(message.split())))

    return Logger()


@dataclass(frozen=True, slots=True)
class Bindings:
    """Imported bindings.

    Attributes:
        trt: The module.
        flavour: One of `FLAVOURS`.
        version: As it says, such as "10.13.3.9".
    """

    trt: Any
    flavour: str
    version: str

    @property
    def is_rtx(self) -> bool:
        """Whether this is TensorRT-RTX, which compiles its last step on the GPU where it runs."""
        return self.flavour == "tensorrt_rtx"

    @property
    def label(self) -> str:
        """For messages, such as "TensorRT 10.13.3.9"."""
        return f"{'TensorRT-RTX' if self.is_rtx else 'TensorRT'} {self.version}"

    def new_log(self) -> Log:
        """A logger that keeps what TensorRT says."""
        return Log(self.trt)

    def network_flags(self) -> int:
        """What `Builder.create_network` takes for an explicit batch dimension and, where it can, strong types."""
        flags = self.trt.NetworkDefinitionCreationFlag
        if hasattr(flags, "STRONGLY_TYPED"):
            return 1 << int(flags.STRONGLY_TYPED)
        return 1 << int(flags.EXPLICIT_BATCH)

    def weak_network_flags(self) -> int | None:
        """The same of a network whose precision the builder's flags choose; None where types are always strong."""
        if not self.has_builder_flag("FP16"):
            return None
        flags = self.trt.NetworkDefinitionCreationFlag
        return 1 << int(flags.EXPLICIT_BATCH) if hasattr(flags, "EXPLICIT_BATCH") else 0

    def has_builder_flag(self, name: str) -> bool:
        """Whether there is `BuilderFlag.NAME`: `FP16` and its like have gone with TensorRT 11."""
        return hasattr(self.trt.BuilderFlag, name)

    @property
    def has_progress_monitor(self) -> bool:
        """Whether a build can tell how far it is."""
        return hasattr(self.trt, "IProgressMonitor")

    @property
    def has_compute_capabilities(self) -> bool:
        """Whether a build names the GPUs that it is for, instead of being for the one at hand."""
        return hasattr(self.trt, "ComputeCapability")


def load_bindings(name: str | None = None) -> Bindings:
    """Import the bindings of a flavour, or of the first that is installed.

    Raises:
        EngineError: There are none, or they cannot be loaded; one line that names what is missing.
    """
    if name is not None and name not in _MODULES:
        raise EngineError(f"unknown TensorRT {name!r}: one of {', '.join(FLAVOURS)}")
    failures: list[str] = []
    for flavour in FLAVOURS if name is None else (name,):
        for module_name in _MODULES[flavour]:
            try:
                module = importlib.import_module(module_name)
            except (ImportError, OSError) as error:  # OSError of a library that is not where it should be
                if getattr(error, "name", None) != module_name:
                    failures.append(f"{module_name}: {' '.join(str(error).split())}")
                continue
            if hasattr(module, "Runtime"):
                return Bindings(module, flavour, str(module.__version__))
            failures.append(f"{module_name} is not TensorRT's: it has no Runtime")
    extra = _EXTRAS[name or "tensorrt"]
    reason = f" ({'; '.join(failures)})" if failures else ""
    raise EngineError(f"TensorRT cannot be imported{reason}: pip install 'predictd[{extra}]'")
