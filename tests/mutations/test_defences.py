"""That the tests of docs/security.md see when a defence is gone: in a copy of the tree it is taken away."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("protos", "server", "engines", "clients", "tests")


@dataclass(frozen=True, slots=True)
class Mutation:
    """A defence, how it is taken away, and the test that must fail then."""

    file: str
    before: str
    after: str
    test: str


MUTATIONS = {
    "file names": Mutation(
        "server/predictd/server/config/file_names.py",
        'or ".." in path.parts',
        "",
        "tests/unit/config/test_file_names.py::test_all_others_are_refused_in_one_line",
    ),
    "links": Mutation(
        "server/predictd/server/repository/bounds.py",
        "if not _contained(path, folders)",
        "if False",
        "tests/unit/repository/test_bounds.py::test_links_that_lead_elsewhere_keep_a_model_from_being_served",
    ),
    "network": Mutation(
        "server/predictd/server/launch/sandbox/seccomp.py",
        "Instruction(_RETURN, ERRNO | errno.EACCES)",
        "Instruction(_RETURN, ALLOW)",
        "tests/unit/launch/test_seccomp.py::test_what_only_an_intruder_calls_is_denied_and_all_else_is_not",
    ),
    "sandbox": Mutation(
        "server/predictd/server/worker/start.py",
        "if confinement is not None:",
        "if confinement is None and not sys.argv:",
        "tests/processes/test_sandbox.py::test_an_intruder_reaches_the_model_and_the_cache_and_nothing_else",
    ),
    "engine's words": Mutation(
        "server/predictd/server/worker/engine_errors.py",
        'return f"the engine failed ({told})"',
        "return str(error)",
        "tests/unit/worker/test_runner_errors.py::test_how_an_engine_failed_is_logged_and_not_told",
    ),
    "paths": Mutation(
        "server/predictd/server/supervise/catalog.py",
        "return without_paths(text, self._folders)",
        "return text",
        "tests/processes/test_error_texts.py::test_no_answer_names_what_is_inside",
    ),
    "commands of workers": Mutation(
        "server/predictd/server/supervise/believable.py",
        "if isinstance(message, _OF_FRONTENDS):",
        "if not isinstance(message, Message):",
        "tests/unit/supervise/test_believable.py::test_a_worker_commands_nothing",
    ),
}


def outcome(tree: Path, test: str) -> subprocess.CompletedProcess[str]:
    """One test in a copy of the tree."""
    roots = [str(tree / folder) for folder in FOLDERS[:4]]
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", test],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([*roots, str(tree)])},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.mark.soak
@pytest.mark.parametrize("name", MUTATIONS)
def test_without_its_defence_the_test_fails(name: str, tmp_path: Path) -> None:
    mutation = MUTATIONS[name]
    leave = shutil.ignore_patterns("__pycache__")
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=leave)
    shutil.copy2(ROOT / "pyproject.toml", tmp_path)
    whole = outcome(tmp_path, mutation.test)
    assert whole.returncode == 0, whole.stdout
    file = tmp_path / mutation.file
    text = file.read_text()
    assert text.count(mutation.before) == 1
    file.write_text(text.replace(mutation.before, mutation.after))
    without = outcome(tmp_path, mutation.test)
    # 1 is a test that failed, and not one that could not be run.
    assert without.returncode == 1, without.stdout


def test_what_is_taken_away_is_there() -> None:
    for mutation in MUTATIONS.values():
        assert (ROOT / mutation.file).read_text().count(mutation.before) == 1, mutation
        file, _, name = mutation.test.partition("::")
        assert f"def {name}(" in (ROOT / file).read_text(), mutation
