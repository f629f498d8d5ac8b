"""What the variables of the plan do to a real OpenMP runtime, and what those do that it never sets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping

import pytest

from predictd.server.launch.environment import Role, choose_variables
from predictd.server.launch.facilities import read_facilities
from tests.fixtures.daemon import REPOSITORY
from tests.fixtures.openmp_masks import Masks

FACILITIES = read_facilities()
CPUS = sorted(os.sched_getaffinity(0))
RECIPE = {"KMP_AFFINITY": "granularity=fine,compact,1,0", "KMP_BLOCKTIME": "1"}
_PREFIXES = ("OMP_", "GOMP_", "KMP_", "LD_PRELOAD")

pytestmark = pytest.mark.skipif(len(CPUS) < 2, reason="on one CPU nothing can be squeezed onto one CPU")


@pytest.fixture(name="libgomp")
def _libgomp() -> str:
    if FACILITIES.libgomp is None:
        pytest.skip("libgomp.so.1 is not installed")
    return FACILITIES.libgomp


@pytest.fixture(name="libiomp5")
def _libiomp5() -> str:
    if FACILITIES.libiomp5 is None:
        pytest.skip("libiomp5.so is not installed (pip: intel-openmp)")
    return FACILITIES.libiomp5


def _planned(*, passive: bool, openmp: str | None = None) -> dict[str, str]:
    variables = choose_variables(
        Role.WORKER,
        engines=frozenset({"mine:load"}),
        threads=len(CPUS),
        cpus=CPUS,
        passive=passive,
        allocator=None,
        facilities=FACILITIES,
        exported={},
        openmp=openmp,
    )
    return {variable.name: variable.value for variable in variables}


def _masks(library: str, environment: Mapping[str, str]) -> Masks:
    base = {name: value for name, value in os.environ.items() if not name.startswith(_PREFIXES)}
    # With PYTHONSAFEPATH the working directory is not searched.
    base["PYTHONPATH"] = os.pathsep.join(filter(None, (str(REPOSITORY), base.get("PYTHONPATH"))))
    done = subprocess.run(
        [sys.executable, "-m", "tests.fixtures.openmp_masks", library],
        env={**base, "OMP_NUM_THREADS": str(len(CPUS)), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    # A library that cannot be preloaded is a line here and nothing else.
    assert "cannot be preloaded" not in done.stderr
    return Masks(**json.loads(done.stdout))


def _afterwards(masks: Masks) -> list[list[int]]:
    return [masks.first, masks.thread, masks.child]


@pytest.mark.parametrize("passive", [True, False])
def test_with_the_plans_variables_every_thread_of_libgomp_keeps_the_whole_mask(
    libgomp: str, passive: bool
) -> None:
    masks = _masks(libgomp, _planned(passive=passive))
    assert masks.team == [CPUS] * len(CPUS)
    assert _afterwards(masks) == [CPUS] * 3


def test_threads_of_libiomp5_have_a_cpu_each_and_all_others_the_whole_mask(libiomp5: str) -> None:
    masks = _masks(libiomp5, _planned(passive=False, openmp="libiomp5"))
    assert sorted(masks.team) == [[cpu] for cpu in CPUS]
    assert _afterwards(masks) == [CPUS] * 3


def test_on_shared_cpus_threads_of_libiomp5_are_free(libiomp5: str) -> None:
    masks = _masks(libiomp5, _planned(passive=True, openmp="libiomp5"))
    assert masks.team == [CPUS] * len(CPUS)
    assert _afterwards(masks) == [CPUS] * 3


@pytest.mark.parametrize(
    "variables", [{"OMP_PROC_BIND": "CLOSE"}, {"GOMP_CPU_AFFINITY": "0-1023"}, {"OMP_PLACES": "cores"}]
)
def test_what_binds_libgomp_squeezes_all_that_comes_later_onto_one_cpu(
    libgomp: str, variables: dict[str, str]
) -> None:
    assert _afterwards(_masks(libgomp, variables)) == [CPUS[:1]] * 3


def test_the_recipe_does_nothing_to_libgomp(libgomp: str) -> None:
    masks = _masks(libgomp, RECIPE)
    assert masks.team == [CPUS] * len(CPUS)
    assert _afterwards(masks) == [CPUS] * 3


def test_the_recipe_as_written_squeezes_all_that_comes_later_onto_one_cpu(libiomp5: str) -> None:
    assert _afterwards(_masks(libiomp5, RECIPE | {"LD_PRELOAD": libiomp5})) == [CPUS[:1]] * 3
