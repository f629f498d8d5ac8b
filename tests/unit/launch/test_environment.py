import pytest

from predictd.server.launch.environment import Role, binding_warnings, child_environment, choose_variables

BINDING = ("OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY", "KMP_AFFINITY")


def chosen(role: Role, *, threads: int = 1, passive: bool = True, **exported: str) -> dict[str, str]:
    variables = choose_variables(role, threads=threads, passive=passive, exported=exported)
    return {variable.name: variable.value for variable in variables}


def reason(name: str, **exported: str) -> str:
    variables = choose_variables(Role.WORKER, threads=4, passive=True, exported=exported)
    return next(variable.reason for variable in variables if variable.name == name)


def test_a_worker_gets_its_thread_counts() -> None:
    assert chosen(Role.WORKER, threads=4, passive=False) == {
        "ORT_DISABLE_TELEMETRY": "1",
        "OMP_NUM_THREADS": "4",
        "OPENBLAS_NUM_THREADS": "4",
        "MKL_NUM_THREADS": "4",
        "PYTHONUNBUFFERED": "1",
    }


def test_a_front_end_gets_one_thread_and_quiet_grpc() -> None:
    assert chosen(Role.FRONTEND) == {
        "ORT_DISABLE_TELEMETRY": "1",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "GRPC_VERBOSITY": "ERROR",
        "GRPC_ENABLE_FORK_SUPPORT": "0",
    }


def test_threads_wait_passively_only_where_others_need_the_cpus() -> None:
    assert chosen(Role.WORKER, passive=True)["OMP_WAIT_POLICY"] == "PASSIVE"
    assert "OMP_WAIT_POLICY" not in chosen(Role.WORKER, passive=False)


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("passive", [True, False])
def test_nothing_binds_threads(role: Role, passive: bool) -> None:
    assert not set(BINDING) & set(chosen(role, threads=8, passive=passive))


@pytest.mark.parametrize("role", Role)
def test_every_value_has_a_reason(role: Role) -> None:
    assert all(v.reason for v in choose_variables(role, threads=3, passive=True, exported={}))


def test_what_the_user_exported_wins_and_the_reason_says_so() -> None:
    assert chosen(Role.WORKER, threads=4, OMP_NUM_THREADS="2")["OMP_NUM_THREADS"] == "2"
    assert reason("OMP_NUM_THREADS", OMP_NUM_THREADS="2").startswith(
        "exported by the user and kept; the plan would say 4: "
    )
    assert reason("OMP_NUM_THREADS", OMP_NUM_THREADS="4").startswith(
        "exported by the user and kept; the plan agrees: "
    )


def test_telemetry_stays_off_whatever_the_user_exported() -> None:
    assert chosen(Role.WORKER, ORT_DISABLE_TELEMETRY="0")["ORT_DISABLE_TELEMETRY"] == "1"
    assert reason("ORT_DISABLE_TELEMETRY", ORT_DISABLE_TELEMETRY="0") == (
        "no process phones home (the exported '0' is overridden)"
    )
    assert reason("ORT_DISABLE_TELEMETRY", ORT_DISABLE_TELEMETRY="1") == "no process phones home"


def test_the_rest_of_the_environment_is_passed_on_and_the_base_is_not_changed() -> None:
    base = {"PATH": "/bin", "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "64"}
    assert child_environment(base, {"OMP_NUM_THREADS": "4"}) == {
        "PATH": "/bin",
        "PYTHONSAFEPATH": "1",
        "OMP_NUM_THREADS": "4",
    }
    assert base["OMP_NUM_THREADS"] == "64"


@pytest.mark.parametrize("name", BINDING)
def test_an_exported_variable_that_binds_threads_is_warned_about(name: str) -> None:
    (warning,) = binding_warnings({name: "granularity=fine,compact,1,0", "PATH": "/bin"})
    assert warning.startswith(f"{name}=granularity=fine,compact,1,0 is exported and kept")


@pytest.mark.parametrize(
    "exported",
    [
        {},
        {"OMP_PROC_BIND": "FALSE"},
        {"KMP_AFFINITY": "disabled"},
        {"KMP_AFFINITY": "granularity=fine,compact,1,0,reset"},
        {"GOMP_CPU_AFFINITY": ""},
    ],
)
def test_the_harmless_forms_are_not(exported: dict[str, str]) -> None:
    assert binding_warnings(exported) == ()
