"""What an OpenMP runtime in a worker is told.

GCC's and LLVM's runtimes bind the thread that comes first when they are told to bind threads at all, and every
thread and process that it makes afterwards inherits that one CPU: those of gRPC, of ONNX Runtime, the next child. So
`OMP_PROC_BIND`, `OMP_PLACES` and `GOMP_CPU_AFFINITY` are never set; the mask that a child is started with says where
it may run. libiomp5 alone can bind its own threads and give the first one its mask back (`reset`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from predictd.engines.traits import Threading, engine_traits
from predictd.server.launch.cpulist import format_cpulist
from predictd.server.launch.facilities import Facilities
from predictd.server.launch.variables import Variable, preloaded

LIBIOMP5 = "libiomp5"
# Measured in docs/tuning.md: on quiet cores nearly as fast as spinning without end, which libgomp does by itself and
# which is dozens of times slower as soon as anything else runs there.
GOMP_SPINS = "1000"
_BINDING: Mapping[str, tuple[str, ...]] = {
    # For each variable the words that make it harmless.
    "OMP_PROC_BIND": ("false",),
    "OMP_PLACES": (),
    "GOMP_CPU_AFFINITY": (),
    "KMP_AFFINITY": ("reset", "disabled", "none"),
}
_OPENMP_PREFIXES = ("OMP_", "GOMP_", "KMP_")


def with_openmp(engines: frozenset[str]) -> tuple[str, ...]:
    """Those engines in which an OpenMP runtime may run. Nothing is known of none: it may be any."""
    return tuple(sorted(e for e in engines if engine_traits(e).threading is not Threading.OPTIONS))


def may_load_openmp(engines: frozenset[str]) -> bool:
    """Whether an OpenMP runtime may run in a worker with these engines; of an empty set nothing is known."""
    return not engines or bool(with_openmp(engines))


def preloads_libiomp5(exported: Mapping[str, str]) -> bool:
    """Whether the user preloads that runtime."""
    return any(path.rpartition("/")[2].startswith(LIBIOMP5) for path in preloaded(exported))


def preload_for(openmp: str | None, facilities: Facilities, exported: Mapping[str, str]) -> str | None:
    """The OpenMP runtime to preload, if one is asked for, is there, and is not preloaded by the user."""
    if openmp != LIBIOMP5 or preloads_libiomp5(exported):
        return None
    return facilities.libiomp5


def openmp_variables(
    *, threads: int, cpus: Sequence[int], passive: bool, libiomp5: bool
) -> tuple[Variable, ...]:
    """What the OpenMP runtime of a worker is told.

    Args:
        threads: Threads that compute at once.
        cpus: The worker's mask.
        passive: Others need the CPUs while a thread waits, or a quota counts the waiting.
        libiomp5: That runtime is preloaded.
    """
    unbound = "none is bound (OMP_PROC_BIND, GOMP_CPU_AFFINITY), or all would inherit the first one's CPU"
    count = Variable("OMP_NUM_THREADS", str(threads), f"the worker's threads; {unbound}")
    sleeps = "a thread that waits sleeps, as others need its CPU or a quota counts the waiting"
    if not libiomp5:
        if passive:
            return count, Variable("OMP_WAIT_POLICY", "PASSIVE", sleeps)
        why = "a thread that waits spins a thousand times, some microseconds, then leaves its core to the front ends"
        return count, Variable("GOMP_SPINCOUNT", GOMP_SPINS, why)
    if passive:
        return count, Variable("KMP_BLOCKTIME", "0", sleeps)
    spins = "a thread that waits spins for 1 ms, not 200, and then leaves its core to the front ends"
    blocktime = Variable("KMP_BLOCKTIME", "1", spins)
    if threads == 1 or len(cpus) == 1:
        return count, blocktime
    binds = (
        f"each thread of libiomp5 keeps to a core of CPUs {format_cpulist(cpus)}, which no other worker uses; "
        "reset gives the first thread its mask back"
    )
    affinity = Variable("KMP_AFFINITY", "granularity=fine,compact,1,0,reset", binds)
    return count, blocktime, affinity


def threading_reasons(engines: frozenset[str]) -> tuple[str, ...]:
    """For each engine that takes its threads from options, that no variable changes them."""
    known = sorted(e for e in engines if engine_traits(e).threading is Threading.OPTIONS)
    return tuple(f"{engine}: {_OPTIONS}{_BESIDES.get(engine, '')}" for engine in known)


_OPTIONS = "gets its number of threads as an option at load and obeys no OMP_* or KMP_* variable"
_BESIDES = {"onnxruntime": "; the option wins over ORT_INTRA_OP_NUM_THREADS, which is left alone"}


def openmp_warnings(
    engines: frozenset[str], openmp: frozenset[str], facilities: Facilities, exported: Mapping[str, str]
) -> tuple[str, ...]:
    """What is to be said of exported variables and of runtimes that are asked for.

    Args:
        engines: Of all workers.
        openmp: The runtimes that are asked for.
        facilities: What there is.
        exported: The variables that the user exported.
    """
    ours = LIBIOMP5 in openmp and facilities.libiomp5 is not None
    libiomp5 = ours or preloads_libiomp5(exported)
    warnings = [_without_effect(engines, libiomp5, exported)]
    if may_load_openmp(engines):
        warnings += [_binding(name, libiomp5, exported) for name in _BINDING]
    if LIBIOMP5 in openmp and not libiomp5:
        warnings.append('openmp = "libiomp5" is asked for, but there is no libiomp5.so (pip: intel-openmp)')
    if openmp and not may_load_openmp(engines):
        warnings.append(f"openmp is set and has no effect: {_list(engines)} is without OpenMP")
    return tuple(warning for warning in warnings if warning)


def _without_effect(engines: frozenset[str], libiomp5: bool, exported: Mapping[str, str]) -> str:
    names = sorted(name for name in exported if name.startswith(_OPENMP_PREFIXES) and exported[name])
    if not may_load_openmp(engines):
        names += ["ORT_INTRA_OP_NUM_THREADS"] * ("ORT_INTRA_OP_NUM_THREADS" in exported)
        why = f"{_list(engines)} obeys none; --threads says how many threads"
        return _unheard(names, why)
    if libiomp5:
        return ""
    why = 'none is preloaded; openmp = "libiomp5" in model.toml does that'
    return _unheard([name for name in names if name.startswith("KMP_")], why, " without libiomp5")


def _unheard(names: Sequence[str], why: str, condition: str = "") -> str:
    verb = "is exported and has" if len(names) == 1 else "are exported and have"
    return f"{', '.join(names)} {verb} no effect{condition}: {why}" if names else ""


def _binding(name: str, libiomp5: bool, exported: Mapping[str, str]) -> str:
    value = exported.get(name, "")
    harmless = any(word in value.lower().split(",") for word in _BINDING[name])
    unheard = name.startswith("KMP_") and not libiomp5
    if not value or harmless or unheard:
        return ""
    return f"{name}={value} is exported and kept: with it, OpenMP may squeeze all threads onto one CPU"


def _list(engines: frozenset[str]) -> str:
    return " and ".join(sorted(engines))
