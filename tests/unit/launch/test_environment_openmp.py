"""What OpenMP runtimes are told, and what is said of variables that the user exported for them."""

import pytest

from predictd.server.launch.facilities import Facilities
from predictd.server.launch.openmp import openmp_variables, openmp_warnings, preload_for, preloads_libiomp5

ORT = frozenset({"onnxruntime"})
CUSTOM = frozenset({"mine:load"})
NONE: frozenset[str] = frozenset()
IOMP = Facilities(libiomp5="/opt/lib/libiomp5.so")
PRELOAD = {"LD_PRELOAD": "/x/libfoo.so /opt/intel/libiomp5.so"}
RECIPE = {"KMP_AFFINITY": "granularity=fine,compact,1,0", "KMP_BLOCKTIME": "1"}


def told(*, threads: int = 4, cpus: int = 4, passive: bool, libiomp5: bool) -> dict[str, str]:
    found = openmp_variables(threads=threads, cpus=range(cpus), passive=passive, libiomp5=libiomp5)
    assert all(variable.reason for variable in found)
    return {variable.name: variable.value for variable in found}


def test_gccs_runtime_spins_for_a_moment_on_its_own_cores_and_not_on_shared_ones() -> None:
    assert told(passive=False, libiomp5=False) == {"OMP_NUM_THREADS": "4", "GOMP_SPINCOUNT": "1000"}
    assert told(passive=True, libiomp5=False) == {"OMP_NUM_THREADS": "4", "OMP_WAIT_POLICY": "PASSIVE"}


def test_intels_runtime_binds_its_threads_on_its_own_cores_alone() -> None:
    count = {"OMP_NUM_THREADS": "4"}
    bound = {"KMP_AFFINITY": "granularity=fine,compact,1,0,reset", "KMP_BLOCKTIME": "1"}
    assert told(passive=False, libiomp5=True) == count | bound
    # Bound on shared CPUs, each worker's threads would start from the same first core.
    assert told(passive=True, libiomp5=True) == count | {"KMP_BLOCKTIME": "0"}


@pytest.mark.parametrize(("threads", "cpus"), [(1, 4), (4, 1)])
def test_nothing_is_bound_where_there_is_no_choice(threads: int, cpus: int) -> None:
    assert "KMP_AFFINITY" not in told(threads=threads, cpus=cpus, passive=False, libiomp5=True)


def test_why_no_thread_is_bound_is_said() -> None:
    count, _ = openmp_variables(threads=4, cpus=range(4), passive=False, libiomp5=False)
    assert "OMP_PROC_BIND" in count.reason
    assert "GOMP_CPU_AFFINITY" in count.reason


def test_a_runtime_is_preloaded_only_where_it_is_asked_for_and_there_and_not_preloaded_yet() -> None:
    assert preload_for("libiomp5", IOMP, {}) == "/opt/lib/libiomp5.so"
    assert preload_for("libiomp5", IOMP, PRELOAD) is None
    assert preload_for("libiomp5", Facilities(), {}) is None
    assert preload_for("libgomp", IOMP, {}) is None
    assert preload_for(None, IOMP, {}) is None
    assert preloads_libiomp5(PRELOAD)
    assert not preloads_libiomp5({"LD_PRELOAD": "/libiomp5/libother.so"})


def test_a_runtime_that_is_asked_for_and_missing_is_named_with_its_package() -> None:
    (warning,) = openmp_warnings(CUSTOM, frozenset({"libiomp5"}), Facilities(), {})
    assert warning == 'openmp = "libiomp5" is asked for, but there is no libiomp5.so (pip: intel-openmp)'
    assert openmp_warnings(CUSTOM, frozenset({"libiomp5"}), IOMP, {}) == ()


@pytest.mark.parametrize("name", ["OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY"])
@pytest.mark.parametrize("engines", [CUSTOM, ORT | CUSTOM, NONE])
def test_an_exported_variable_that_binds_threads_is_warned_about(name: str, engines: frozenset[str]) -> None:
    (warning,) = openmp_warnings(engines, NONE, Facilities(), {name: "0-3", "PATH": "/bin"})
    assert warning == (
        f"{name}=0-3 is exported and kept: with it, OpenMP may squeeze all threads onto one CPU"
    )


def test_the_recipe_binds_where_libiomp5_hears_it() -> None:
    (warning,) = openmp_warnings(CUSTOM, NONE, IOMP, RECIPE | PRELOAD)
    assert warning.startswith("KMP_AFFINITY=granularity=fine,compact,1,0 is exported and kept")
    assert openmp_warnings(CUSTOM, frozenset({"libiomp5"}), IOMP, RECIPE) == (warning,)


def test_the_recipe_is_said_to_be_without_effect_where_there_is_no_libiomp5() -> None:
    assert openmp_warnings(CUSTOM, NONE, IOMP, RECIPE | {"OMP_NUM_THREADS": "4"}) == (
        (
            "KMP_AFFINITY, KMP_BLOCKTIME are exported and have no effect without libiomp5: none is preloaded; "
            'openmp = "libiomp5" in model.toml does that'
        ),
    )


def test_all_of_it_is_said_to_be_without_effect_on_an_engine_that_takes_options() -> None:
    exported = {"OMP_NUM_THREADS": "4", "KMP_BLOCKTIME": "1", "GOMP_SPINCOUNT": "", "HOME": "/"}
    assert openmp_warnings(ORT, NONE, IOMP, exported) == (
        (
            "KMP_BLOCKTIME, OMP_NUM_THREADS are exported and have no effect: onnxruntime obeys none; "
            "--threads says how many threads"
        ),
    )
    assert openmp_warnings(ORT, NONE, IOMP, {"ORT_INTRA_OP_NUM_THREADS": "2"}) == (
        (
            "ORT_INTRA_OP_NUM_THREADS is exported and has no effect: onnxruntime obeys none; "
            "--threads says how many threads"
        ),
    )


@pytest.mark.parametrize(
    "exported",
    [
        {},
        {"OMP_PROC_BIND": "FALSE"},
        {"GOMP_CPU_AFFINITY": ""},
        {"KMP_AFFINITY": "disabled", **PRELOAD},
        {"KMP_AFFINITY": "granularity=fine,compact,1,0,reset", **PRELOAD},
        {"OMP_NUM_THREADS": "4"},
    ],
)
def test_of_the_harmless_forms_nothing_is_said(exported: dict[str, str]) -> None:
    assert openmp_warnings(CUSTOM, NONE, IOMP, exported) == ()
