"""From a model to its lighter form, step by step, in a folder of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from predictd.server.optimize import calibration_cache, quantize
from predictd.server.optimize.ahead_of_time import optimize_ahead, where_it_fits
from predictd.server.optimize.bfloat16 import to_bf16
from predictd.server.optimize.calibration import Calibration, calibrate
from predictd.server.optimize.errors import OptimizeError
from predictd.server.optimize.half import beyond_fp16, to_fp16
from predictd.server.optimize.inputs import Sample, batches
from predictd.server.optimize.onnx_file import has_external_data, read_model, write_model
from predictd.server.optimize.preparing import check_names, check_not_quantized, prepare
from predictd.server.optimize.prune import GROUP, KEPT, Pruning, prune
from predictd.server.optimize.target import Target, cpuinfo, needs_reduced_range
from predictd.server.optimize.wish import Precision, Wish

if TYPE_CHECKING:
    from predictd.engines.api import Signature
    from predictd.engines.cache import CacheFolder

# Of a run while calibrating.
_ROWS = 8
_NAMES_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Transformed:
    """What was made.

    Attributes:
        path: The result.
        for_cpu: What computes the same on a CPU; the same file, but for BF16, which no CPU engine runs.
        notes: What the user has to know of it.
    """

    path: Path
    for_cpu: Path
    notes: tuple[str, ...]


class Transformation:
    """One wish, carried out."""

    def __init__(
        self,
        wish: Wish,
        signature: Signature,
        samples: Sequence[Sample],
        cache: CacheFolder | None,
        work: Path,
        say: Callable[[str], None],
    ) -> None:
        self._wish = wish
        self._signature = signature
        self._samples = samples
        self._cache = cache
        self._work = work
        self._say = say
        self._notes: list[str] = []
        external = wish.external_data
        self._external = has_external_data(wish.model) if external is None else external

    def run(self) -> Transformed:
        """Carry it out.

        Raises:
            OptimizeError: It cannot be done.
        """
        check_names(self._wish.model, self._wish.exclude)
        source = self._pruned() if self._wish.prune else self._wish.model
        light = self._in_precision(source)
        result = self._work / "result" / self._wish.output.name
        result.parent.mkdir()
        if self._wish.ahead_of_time:
            self._say("optimizing the graph")
            optimize_ahead(light, result)
            self._notes.append(f"the graph fits {where_it_fits()}: make it anew elsewhere")
        else:
            write_model(read_model(light), result, external=self._external)
        for_cpu = self._emulation() if self._wish.precision is Precision.BF16 else result
        return Transformed(result, for_cpu, tuple(self._notes))

    def _pruned(self) -> Path:
        self._say("pruning")
        model = read_model(self._wish.model)
        pruning = prune(model, self._wish.exclude)
        if not pruning.pruned:
            name, reason = next(iter(pruning.kept), ("", "it has no MatMul, Gemm or Conv with weights"))
            raise OptimizeError(
                f"{self._wish.model}: nothing can be pruned: {name}{': ' * bool(name)}{reason}"
            )
        self._notes += _of_pruning(pruning)
        result = self._work / "pruned.onnx"
        write_model(model, result, external=self._external)
        return result

    def _in_precision(self, source: Path) -> Path:
        precision = self._wish.precision
        if precision is None:
            return source
        self._say(f"converting to {precision}")
        check_not_quantized(source)
        prepared, result = self._work / "prepared.onnx", self._work / "light.onnx"
        prepare(source, prepared)
        match precision:
            case Precision.INT8:
                self._static(source, prepared, result)
            case Precision.INT8_DYNAMIC:
                quantize.dynamic(
                    prepared, result, exclude=self._wish.exclude, reduce_range=self._reduce_range()
                )
            case Precision.FP16:
                self._fp16(prepared, result)
            case Precision.BF16:
                write_model(to_bf16(prepared, self._wish.exclude), result, external=False)
        return result

    def _static(self, source: Path, prepared: Path, result: Path) -> None:
        calibration = Calibration(self._samples, self._wish.method)
        kinds = quantize.static_operators(prepared, self._wish.target)

        def make(table: Path) -> None:
            self._say(f"calibrating on {len(self._samples)} samples")
            rows = batches(self._samples, self._signature, _ROWS)
            calibrate(prepared, rows, calibration.method, kinds, table)

        key = calibration_cache.table_key(source, calibration, kinds, _ROWS)
        table, kept = calibration_cache.table_for(self._cache, key, make, self._work)
        if kept:
            self._say(f"ranges from an earlier calibration: {table}")
        quantize.static(
            prepared,
            result,
            table,
            calibration.method,
            self._wish.target,
            kinds=kinds,
            exclude=self._wish.exclude,
            reduce_range=self._reduce_range(),
        )

    def _reduce_range(self) -> bool:
        wanted = self._wish.reduce_range
        if wanted is None and needs_reduced_range(self._wish.target, cpuinfo()):
            self._notes.append("weights have 7 bits: this CPU has no VNNI, and 8 would overflow")
            return True
        return bool(wanted)

    def _fp16(self, prepared: Path, result: Path) -> None:
        large = beyond_fp16(read_model(prepared))
        if large:
            self._notes.append(f"values too large for FP16 were cut off in {_listed(large)}")
        if self._wish.target is Target.ONNXRUNTIME:
            self._notes.append(
                "ONNX Runtime computes FP16 as FP32 on most CPUs: the file is half as large, and no faster"
            )
        write_model(to_fp16(prepared, self._wish.exclude), result, external=False)

    def _emulation(self) -> Path:
        """What computes the same as the result, on a CPU without BF16."""
        emulation = self._work / "emulation.onnx"
        write_model(
            to_bf16(self._work / "prepared.onnx", self._wish.exclude, emulate=True), emulation, external=False
        )
        return emulation


def _of_pruning(pruning: Pruning) -> list[str]:
    total = len(pruning.pruned) + len(pruning.kept)
    notes = [
        f"pruned {len(pruning.pruned)} of {total} weights: of {GROUP} values in a row {GROUP - KEPT} are 0",
        "a pruned model needs fine-tuning with its zeros held; only TensorRT's sparse kernels are faster by them",
    ]
    notes += [f"not pruned: {name}: {reason}" for name, reason in pruning.kept[:_NAMES_SHOWN]]
    if len(pruning.kept) > _NAMES_SHOWN:
        notes.append(f"not pruned: {len(pruning.kept) - _NAMES_SHOWN} more")
    return notes


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return ", ".join(map(repr, names[:_NAMES_SHOWN])) + more
