"""A plan on disk: what it was built with, told by a file beside it or, as far as that goes, by its own header.

A plan runs on the kind of GPU and the version of TensorRT that it was built with, and what the library says when it
does not is hard to act on. So a build writes `model.plan.json` beside `model.plan`, and whoever loads a plan asks
here first. A plan from elsewhere has no such file; the first bytes of each name the library's version (NVIDIA tells
where: TensorRT issue 3073), which explains a refusal but does not foretell one: a plan may be version-compatible.
"""

from __future__ import annotations

import dataclasses
import json
import mmap
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from predictd.engines.api import ModelLoadError

SUFFIX = ".json"
_MAGICS = {b"ftrt": "tensorrt", b"vtrt": "tensorrt_rtx"}
_NAMES = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT-RTX"}
_HEADER_BYTES = 36
_VERSION_AT = 24
_CAPABILITIES_AT = 32
# Bits of the capabilities byte of TensorRT-RTX.
_CAPABILITIES = {0x01: "7.5", 0x02: "8.0", 0x04: "8.6", 0x08: "8.9", 0x10: "12.0", 0x20: "12.1"}
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class PlanFacts:
    """What a plan was built with.

    Attributes:
        flavour: "tensorrt" or "tensorrt_rtx".
        version: Of the library, such as "10.13.3.9".
        gpu: Name of the GPU that it was built on; empty where none was needed.
        compute_capability: Of that GPU, such as "8.9".
        targets: Compute capabilities that it was built for; empty for the GPU's own, or for all of TensorRT-RTX.
        options: As `BuildOptions.to_json` writes them.
        model: Name of the model's file.
        model_digest: Of its content.
        version_compatible: Later versions run it, too.
        hardware_compatibility: A value of `HardwareCompatibility`.
        build_seconds: How long it took.
    """

    flavour: str
    version: str
    gpu: str
    compute_capability: str
    targets: tuple[str, ...]
    options: str
    model: str
    model_digest: str
    version_compatible: bool
    hardware_compatibility: str
    build_seconds: float

    def summary(self) -> str:
        """For which GPUs it is, on one line."""
        if self.flavour == "tensorrt_rtx" and not self.targets:
            return "for every GPU that TensorRT-RTX runs on"
        return f"for {_gpus(self)}"


@dataclass(frozen=True, slots=True)
class PlanHeader:
    """What the first bytes of a plan say.

    Attributes:
        flavour: As in `PlanFacts`.
        version: Of the library.
        targets: Compute capabilities; only of TensorRT-RTX.
    """

    flavour: str
    version: str
    targets: tuple[str, ...]

    @property
    def label(self) -> str:
        """For messages, such as "TensorRT 10.13.3.9"."""
        return f"{_NAMES[self.flavour]} {self.version}"


def facts_path(plan: Path) -> Path:
    """Where the facts of a plan stand."""
    return plan.with_name(plan.name + SUFFIX)


def write_plan(plan: Path, content: bytes | memoryview | mmap.mmap, facts: PlanFacts) -> None:
    """Write a plan with its facts. Neither is ever there half.

    Raises:
        OSError: They cannot be written.
    """
    text = json.dumps({"format": _FORMAT} | dataclasses.asdict(facts), indent=1) + "\n"
    # In this order, so that new facts never stand beside an old plan.
    facts_path(plan).unlink(missing_ok=True)
    write_whole(plan, content)
    write_whole(facts_path(plan), text.encode())


def write_whole(path: Path, content: bytes | memoryview | mmap.mmap) -> None:
    """Write a file under another name first. Raises OSError."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            # What mkstemp makes is for its owner alone; this is as readable as any file that one writes.
            os.fchmod(file.fileno(), 0o666 & ~_umask())
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _umask() -> int:
    # Setting it is the only other way to read it, and would concern all threads.
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("Umask:")), 8)


def read_facts(plan: Path) -> PlanFacts | None:
    """What a plan was built with; None when nobody wrote it down, or not for this content."""
    try:
        content: Any = json.loads(facts_path(plan).read_text())
    except (OSError, ValueError):
        return None
    if not isinstance(content, dict) or content.pop("format", None) != _FORMAT:
        return None
    try:
        facts = PlanFacts(**content | {"targets": tuple(content["targets"])})
    except (TypeError, KeyError):
        return None
    header = read_header(plan)
    # A plan that was put there since has facts of its own, or none.
    fits = header is None or (header.flavour, header.version) == (facts.flavour, facts.version)
    return facts if fits else None


def read_header(plan: Path) -> PlanHeader | None:
    """What the first bytes of a plan say; None of what is no plan that is known here.

    Raises:
        OSError: It cannot be read.
    """
    with plan.open("rb") as file:
        head = file.read(_HEADER_BYTES)
    flavour = _MAGICS.get(head[:4])
    if flavour is None or len(head) < _HEADER_BYTES:
        return None
    version = ".".join(str(number) for number in head[_VERSION_AT : _VERSION_AT + 4])
    mask = head[_CAPABILITIES_AT] if flavour == "tensorrt_rtx" else 0
    return PlanHeader(flavour, version, tuple(name for bit, name in _CAPABILITIES.items() if mask & bit))


def check_plan(plan: Path, flavour: str, version: str, compute_capability: Callable[[], str]) -> None:
    """Refuse a plan that cannot run here, as far as one can know beforehand.

    Args:
        plan: The file.
        flavour: Of the library at hand.
        version: Of the library at hand.
        compute_capability: Gives that of the GPU at hand, such as "8.9"; asked only where it matters.

    Raises:
        ModelLoadError: It is for another GPU or library; the line says for which, and what to do.
    """
    try:
        header = read_header(plan)
        facts = read_facts(plan)
    except OSError as error:
        raise ModelLoadError(error.strerror or str(error)) from error
    if header is not None and header.flavour != flavour:
        raise ModelLoadError(f"a plan of {header.label}, and this is {_NAMES[flavour]} {version}: {_REBUILD}")
    if facts is None:
        return
    if facts.version != version and not facts.version_compatible:
        built = f"{_NAMES[facts.flavour]} {facts.version}"
        raise ModelLoadError(f"built by {built}, and this is {version}: {_REBUILD}")
    here = compute_capability()
    if not _runs_on(facts, here):
        raise ModelLoadError(
            f"built for {_gpus(facts)}, and this GPU has compute capability {here}: {_REBUILD}"
        )


def carries_code(plan: Path) -> bool:
    """Whether a plan was built here to be version-compatible: it then has a runtime of its own inside."""
    facts = read_facts(plan)
    return facts is not None and facts.version_compatible


def why_refused(plan: Path, flavour: str, version: str) -> str:
    """What to add to the library's own words when it does not take a plan."""
    try:
        header = read_header(plan)
    except OSError:
        return _REBUILD
    if header is None:
        return f"it does not begin like a plan; {_REBUILD}"
    if (header.flavour, header.version) == (flavour, version):
        return _REBUILD
    return f"it is a plan of {header.label}, and this is {_NAMES[flavour]} {version}: {_REBUILD}"


_REBUILD = "build it again here with predictd build, or serve the .onnx file itself with --engine tensorrt"


def _runs_on(facts: PlanFacts, compute_capability: str) -> bool:
    here = tuple(map(int, compute_capability.split(".")))
    if facts.flavour == "tensorrt_rtx":
        return not facts.targets or compute_capability in facts.targets
    if facts.hardware_compatibility == "ampere_plus":
        return here >= (8, 0)
    return facts.compute_capability == compute_capability


def _gpus(facts: PlanFacts) -> str:
    if facts.targets:
        return f"compute capability {', '.join(facts.targets)}"
    return f"{facts.gpu} (compute capability {facts.compute_capability})"
