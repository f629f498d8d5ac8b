from collections.abc import Sequence
from typing import Any

import pytest

from predictd.server.launch.environment import (
    Role,
    child_environment,
    choose_variables,
    environment_reasons,
    environment_warnings,
)
from predictd.server.launch.facilities import Facilities
from predictd.server.launch.variables import Variable

ORT = frozenset({"onnxruntime"})
CUSTOM = frozenset({"mine:load"})
BINDING = ("OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY", "KMP_AFFINITY")


def variables(role: Role, exported: dict[str, str] | None = None, **options: Any) -> tuple[Variable, ...]:
    usual = {
        "engines": ORT,
        "threads": 1,
        "cpus": range(4),
        "passive": True,
        "allocator": None,
        "facilities": Facilities(),
    }
    return choose_variables(role, **{**usual, **options}, exported=exported or {})


def chosen(role: Role, exported: dict[str, str] | None = None, **options: Any) -> dict[str, str]:
    return {variable.name: variable.value for variable in variables(role, exported, **options)}


def reason(name: str, found: Sequence[Variable]) -> str:
    return next(variable.reason for variable in found if variable.name == name)


COMMON = {"ORT_DISABLE_TELEMETRY": "1", "PYTHONUNBUFFERED": "1", "SPT_NOENV": "1"}


def test_a_worker_whose_engine_takes_options_gets_no_threads_beside_them() -> None:
    assert chosen(Role.WORKER, threads=4) == {
        **COMMON,
        "OPENBLAS_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
    }


@pytest.mark.parametrize("engines", [CUSTOM, ORT | CUSTOM, frozenset()])
def test_a_worker_that_may_load_openmp_is_told_how_many_threads(engines: frozenset[str]) -> None:
    assert chosen(Role.WORKER, threads=4, engines=engines, passive=False) == {
        **COMMON,
        "OPENBLAS_NUM_THREADS": "4",
        "MKL_NUM_THREADS": "4",
        "OMP_NUM_THREADS": "4",
        "GOMP_SPINCOUNT": "1000",
    }


def test_a_front_end_gets_one_thread_and_quiet_grpc_whatever_the_workers_get() -> None:
    facilities = Facilities(
        {"jemalloc": "/lib/libjemalloc.so.2"}, "/lib/libiomp5.so", None, "madvise", None, (2, 36)
    )
    options: dict[str, Any] = {
        "facilities": facilities,
        "allocator": "jemalloc",
        "openmp": "libiomp5",
        "engines": CUSTOM,
    }
    for more in ({}, options):
        assert chosen(Role.FRONTEND, **more) == {
            **COMMON,
            "OPENBLAS_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
            "GRPC_VERBOSITY": "ERROR",
            "GRPC_ENABLE_FORK_SUPPORT": "0",
        }


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("passive", [True, False])
@pytest.mark.parametrize("engines", [ORT, CUSTOM])
def test_nothing_binds_threads(role: Role, passive: bool, engines: frozenset[str]) -> None:
    assert not set(BINDING) & set(chosen(role, threads=8, passive=passive, engines=engines))


@pytest.mark.parametrize("role", Role)
def test_every_value_has_a_reason(role: Role) -> None:
    assert all(v.reason for v in variables(role, threads=3, engines=CUSTOM))


def test_what_the_user_exported_wins_and_the_reason_says_so() -> None:
    exported = {"MKL_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "4"}
    assert chosen(Role.WORKER, exported, threads=4, engines=CUSTOM).items() >= exported.items()
    found = variables(Role.WORKER, exported, threads=4, engines=CUSTOM)
    assert reason("MKL_NUM_THREADS", found).startswith(
        "exported by the user and kept; the plan would say 4: "
    )
    assert reason("OPENBLAS_NUM_THREADS", found).startswith(
        "exported by the user and kept; the plan agrees: "
    )


def test_telemetry_stays_off_whatever_the_user_exported() -> None:
    for exported, text in {
        "0": "no process phones home (the exported '0' is overridden)",
        "1": "no process phones home",
    }.items():
        (first, *_) = variables(Role.WORKER, {"ORT_DISABLE_TELEMETRY": exported})
        assert first == Variable("ORT_DISABLE_TELEMETRY", "1", text)


def test_what_is_preloaded_stands_behind_what_the_user_preloads() -> None:
    facilities = Facilities({"tcmalloc": "/lib/libtcmalloc_minimal.so.4"}, "/opt/libiomp5.so")
    options: dict[str, Any] = {
        "facilities": facilities,
        "allocator": "tcmalloc",
        "openmp": "libiomp5",
        "engines": CUSTOM,
    }
    ours = "/opt/libiomp5.so:/lib/libtcmalloc_minimal.so.4"
    assert chosen(Role.WORKER, **options)["LD_PRELOAD"] == ours
    own = variables(Role.WORKER, {"LD_PRELOAD": "/lib/a.so /lib/b.so"}, **options)
    assert next(v.value for v in own if v.name == "LD_PRELOAD") == f"/lib/a.so /lib/b.so:{ours}"
    assert reason("LD_PRELOAD", own) == (
        "libiomp5.so and libtcmalloc_minimal.so.4 as asked, behind what the user preloads"
    )


def test_an_engine_without_openmp_gets_no_openmp_runtime() -> None:
    options: dict[str, Any] = {
        "facilities": Facilities(libiomp5="/opt/libiomp5.so"),
        "openmp": "libiomp5",
        "engines": ORT,
    }
    assert "LD_PRELOAD" not in chosen(Role.WORKER, **options)
    warnings = environment_warnings(ORT, Facilities(libiomp5="/x"), {}, openmp=frozenset({"libiomp5"}))
    assert warnings == ("openmp is set and has no effect: onnxruntime is without OpenMP",)


def test_what_is_left_alone_has_its_reason_too() -> None:
    assert environment_reasons(ORT | CUSTOM, None, Facilities(), {}) == (
        (
            "onnxruntime: gets its number of threads as an option at load and obeys no OMP_* or KMP_* variable; "
            "the option wins over ORT_INTRA_OP_NUM_THREADS, which is left alone"
        ),
        "allocator: glibc's, no other is faster for every model",
    )


def test_every_pools_allocator_that_is_missing_is_warned_about() -> None:
    asked = frozenset({"jemalloc", "tcmalloc", "glibc", None})
    warnings = environment_warnings(
        ORT, Facilities({"tcmalloc": "/lib/libtcmalloc.so.4"}), {}, allocators=asked
    )
    assert warnings == (
        (
            "allocator jemalloc is asked for, but there is no libjemalloc.so.2 (Debian: libjemalloc2): "
            "glibc's is used"
        ),
    )


def test_no_child_speaks_to_the_service_manager() -> None:
    base = {"NOTIFY_SOCKET": "/run/notify", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "2", "INVOCATION_ID": "3"}
    assert child_environment(base, {}) == {"INVOCATION_ID": "3"}


def test_the_rest_of_the_environment_is_passed_on_and_the_base_is_not_changed() -> None:
    base = {"PATH": "/bin", "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "64"}
    assert child_environment(base, {"OMP_NUM_THREADS": "4"}) == {
        "PATH": "/bin",
        "PYTHONSAFEPATH": "1",
        "OMP_NUM_THREADS": "4",
    }
    assert base["OMP_NUM_THREADS"] == "64"
