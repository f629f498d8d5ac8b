"""Everything that is wrong with some model paths, found without loading a model or importing a runtime."""

from __future__ import annotations

import importlib.util
import math
import os
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from predictd.engines.api import DType
from predictd.engines.traits import BUILT_IN
from predictd.server.config.labels import LabelsError, read_labels
from predictd.server.config.model_config import ModelConfig, Origin, Severity, Warmup, WarmupTensor, located
from predictd.server.config.units import suggestion
from predictd.server.repository.bounds import Bounds
from predictd.server.repository.file_check import check_file
from predictd.server.repository.file_error import ModelFileError
from predictd.server.repository.layout import SUFFIXES
from predictd.server.repository.models import FoundModel, Problem
from predictd.server.repository.onnx_file import check_onnx_file
from predictd.server.repository.scan import scan


@dataclass(frozen=True, slots=True)
class Finding:
    """Something to say about a file.

    Attributes:
        path: The file or folder.
        line: Where in it; None if that does not apply or is not known.
        severity: With an error, something is not served as it should be.
        message: What is wrong, in one line.
        remedy: What to do about it; empty where the message says so already.
    """

    path: Path
    line: int | None
    severity: Severity
    message: str
    remedy: str = ""

    # typing.override needs Python 3.12.
    def __str__(self) -> str:  # type: ignore[explicit-override]
        remedy = f": {self.remedy}" if self.remedy else ""
        return f"{located(self.path, self.line)}: {self.severity}: {self.message}{remedy}"


def check(paths: Sequence[Path], linked: Sequence[Path] = ()) -> tuple[Finding, ...]:
    """Check model files, model folders, repositories and models.config files.

    Args:
        paths: Of these.
        linked: Folders that links may lead into besides.

    Returns:
        All findings, by file and line.
    """
    found = Bounds(tuple(paths), tuple(linked)).apply(scan(paths))
    findings = [_finding(problem, "error") for problem in found.problems]
    findings += [_finding(problem, "warning") for problem in found.warnings]
    for model in (*found.models, *found.rejected):
        findings += _check_engine(model.file)
        findings += _check_versions(model)
        findings += _check_labels(model.file)
        findings += _check_warmup(model.file)
    return tuple(sorted(dict.fromkeys(findings), key=lambda finding: (str(finding.path), finding.line or 0)))


def _finding(problem: Problem, severity: Severity) -> Finding:
    return Finding(problem.path, problem.line, severity, problem.what, problem.remedy)


def _error(origin: Origin, message: str, remedy: str = "") -> Finding:
    return Finding(origin.path, origin.line, "error", message, remedy)


def _check_engine(config: ModelConfig) -> Iterator[Finding]:
    if config.engine is None or config.engine in BUILT_IN:
        return
    origin = config.origins["engine"]
    if not config.custom_engine:
        message = f"there is no engine {config.engine!r}{suggestion(config.engine, BUILT_IN)}"
        yield _error(origin, message, f"known are {', '.join(BUILT_IN)}, or write package.module:function")
        return
    # The package alone: to look for a module inside it would import it.
    package = config.engine.partition(":")[0].partition(".")[0]
    if importlib.util.find_spec(package) is None:
        message = f"engine {config.engine!r}: there is no package {package!r}"
        yield _error(origin, message, "install it, or add its folder to PYTHONPATH")


def _check_versions(model: FoundModel) -> Iterator[Finding]:
    if model.file.engine is not None and model.file.engine not in BUILT_IN:
        return
    for version in model.versions:
        if not version.path.is_file():
            yield Finding(version.path, None, "error", "a folder, not a model file", "put the file here")
            continue
        try:
            _check_version(version.path)
        except ModelFileError as error:
            yield Finding(version.path, None, "error", error.what, error.remedy)
        except OSError as error:
            yield Finding(version.path, None, "error", _reason(error))


def _check_version(path: Path) -> None:
    if path.suffix in SUFFIXES:
        check_file(path)
        return
    # A name that says nothing, as a configuration may give it: then it is for the engine that takes all such.
    with path.open("rb") as file:
        check_onnx_file(file)


def _check_labels(config: ModelConfig) -> Iterator[Finding]:
    for output in config.outputs:
        if output.labels_file is None:
            continue
        origin, place = config.origins["outputs"], f"labels file of output {output.name!r}"
        try:
            read_labels(output.labels_file)
        except OSError as error:
            yield _error(
                origin, f"{place}: {output.labels_file}: {_reason(error)}", "put it here, or remove the name"
            )
        except LabelsError as error:
            yield Finding(output.labels_file, None, "error", error.what, error.remedy)


def _check_warmup(config: ModelConfig) -> Iterator[Finding]:
    warmup = config.warmup
    if warmup is None:
        return
    origin = config.origins["warmup"]
    try:
        if warmup.file is not None and not zipfile.is_zipfile(_existing(warmup.file)):
            yield Finding(warmup.file, None, "error", "not an .npz file", "write it with numpy.savez")
        yield from _check_samples(warmup)
    except OSError as error:
        yield _error(
            origin, f"warm-up: {error.filename}: {_reason(error)}", "put it here, or remove the name"
        )


def _check_samples(warmup: Warmup) -> Iterator[Finding]:
    for sample in warmup.samples:
        for tensor in sample.inputs:
            if tensor.file is None:
                continue
            size, expected = _existing(tensor.file).stat().st_size, _expected_bytes(tensor)
            if expected is not None and size != expected:
                message = f"{size} bytes, but input {tensor.name!r} of warm-up {sample.name!r} has {expected}"
                yield Finding(tensor.file, None, "error", message, "write the raw elements of one row")


def _expected_bytes(tensor: WarmupTensor) -> int | None:
    itemsize = DType[tensor.dtype].itemsize if tensor.dtype else 0
    elements = math.prod(tensor.shape if tensor.rows is None else tensor.shape[1:])
    return elements * itemsize or None


def _existing(path: Path) -> Path:
    if not os.access(path, os.R_OK):
        # Names the reason, which access() does not.
        path.open("rb").close()
    return path


def _reason(error: OSError) -> str:
    return str(error.strerror or error).lower()
