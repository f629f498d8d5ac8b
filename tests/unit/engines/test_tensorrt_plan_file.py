"""A plan says what it was built with, and one for another GPU or version is refused with what to do."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from predictd.engines.api import ModelLoadError
from predictd.engines.tensorrt.plan_file import (
    PlanFacts,
    PlanHeader,
    carries_code,
    check_plan,
    facts_path,
    read_facts,
    read_header,
    why_refused,
    write_plan,
)

FACTS = PlanFacts(
    flavour="tensorrt",
    version="10.9.0.34",
    gpu="NVIDIA L4",
    compute_capability="8.9",
    targets=(),
    options="{}",
    model="model.onnx",
    model_digest="digest",
    version_compatible=False,
    hardware_compatibility="none",
    build_seconds=1.5,
)
RTX = replace(
    FACTS, flavour="tensorrt_rtx", version="1.7.1.116", gpu="", compute_capability="", targets=("8.6", "8.9")
)


def content(
    magic: bytes = b"ftrt", version: tuple[int, ...] = (10, 9, 0, 34), capabilities: int = 0
) -> bytes:
    return magic + bytes(20) + bytes(version) + bytes(4) + bytes([capabilities]) + bytes(50)


def written(folder: Path, facts: PlanFacts = FACTS) -> Path:
    plan = folder / "model.plan"
    rtx = facts.flavour == "tensorrt_rtx"
    version = tuple(map(int, facts.version.split(".")))
    write_plan(plan, content(b"vtrt" if rtx else b"ftrt", version, 0x0C if rtx else 0), facts)
    return plan


@pytest.mark.parametrize("facts", [FACTS, RTX])
def test_what_was_written_is_read(facts: PlanFacts, tmp_path: Path) -> None:
    plan = written(tmp_path, facts)
    assert read_facts(plan) == facts
    assert read_header(plan) == PlanHeader(facts.flavour, facts.version, facts.targets)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.plan", "model.plan.json"]
    assert plan.stat().st_mode == facts_path(plan).stat().st_mode


def test_it_runs_where_it_was_built(tmp_path: Path) -> None:
    check_plan(written(tmp_path), "tensorrt", "10.9.0.34", lambda: "8.9")
    check_plan(written(tmp_path, RTX), "tensorrt_rtx", "1.7.1.116", lambda: "8.6")
    check_plan(written(tmp_path, replace(RTX, targets=())), "tensorrt_rtx", "1.7.1.116", lambda: "12.0")
    assert not carries_code(tmp_path / "model.plan")
    lasting = written(tmp_path, replace(FACTS, version_compatible=True))
    check_plan(lasting, "tensorrt", "11.0.0.1", lambda: "8.9")
    assert carries_code(lasting)
    wide = replace(FACTS, hardware_compatibility="ampere_plus")
    check_plan(written(tmp_path, wide), "tensorrt", "10.9.0.34", lambda: "12.0")


@pytest.mark.parametrize(
    ("facts", "version", "capability", "words"),
    [
        (FACTS, "10.13.0.1", "8.9", ("TensorRT 10.9.0.34", "10.13.0.1")),
        (FACTS, "10.9.0.34", "9.0", ("NVIDIA L4", "8.9", "9.0")),
        (replace(FACTS, hardware_compatibility="ampere_plus"), "10.9.0.34", "7.5", ("8.9", "7.5")),
        (
            replace(FACTS, hardware_compatibility="same_compute_capability"),
            "10.9.0.34",
            "8.6",
            ("8.9", "8.6"),
        ),
    ],
)
def test_elsewhere_it_is_refused_with_what_to_do(
    facts: PlanFacts, version: str, capability: str, words: tuple[str, ...], tmp_path: Path
) -> None:
    with pytest.raises(ModelLoadError) as caught:
        check_plan(written(tmp_path, facts), "tensorrt", version, lambda: capability)
    assert all(word in str(caught.value) for word in (*words, "predictd build", "--engine tensorrt"))


def test_one_of_the_other_library_and_one_for_other_gpus_are_refused(tmp_path: Path) -> None:
    plan = written(tmp_path, RTX)
    with pytest.raises(ModelLoadError, match=r"a plan of TensorRT-RTX 1.7.1.116, and this is TensorRT 10.9"):
        check_plan(plan, "tensorrt", "10.9.0.34", lambda: "8.9")
    with pytest.raises(ModelLoadError, match=r"compute capability 8.6, 8.9, and this GPU has .* 12.0"):
        check_plan(plan, "tensorrt_rtx", "1.7.1.116", lambda: "12.0")


def test_of_a_plan_from_elsewhere_the_header_explains_a_refusal(tmp_path: Path) -> None:
    plan = tmp_path / "model.plan"
    plan.write_bytes(content(version=(8, 6, 1, 6)))
    check_plan(plan, "tensorrt", "10.9.0.34", lambda: "8.9")
    assert "a plan of TensorRT 8.6.1.6, and this is TensorRT 10.9.0.34" in why_refused(
        plan, "tensorrt", "10.9.0.34"
    )
    assert "predictd build" in why_refused(plan, "tensorrt", "8.6.1.6")
    plan.write_bytes(b"something else entirely, as long as a header is")
    assert "does not begin like a plan" in why_refused(plan, "tensorrt", "10.9.0.34")
    assert read_header(plan) is None
    with pytest.raises(ModelLoadError, match="No such file"):
        check_plan(tmp_path / "nothing.plan", "tensorrt", "10.9.0.34", lambda: "8.9")


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": 2}', '{"format": 1}', '{"format": 1, "targets": []}', "\x00"]
)
def test_facts_that_are_none_count_for_nothing(text: str, tmp_path: Path) -> None:
    plan = written(tmp_path)
    facts_path(plan).write_text(text)
    assert read_facts(plan) is None


def test_facts_of_another_plan_count_for_nothing(tmp_path: Path) -> None:
    plan = written(tmp_path)
    plan.write_bytes(content(version=(10, 13, 0, 1)))
    assert read_facts(plan) is None
    assert json.loads(facts_path(plan).read_text())["version"] == "10.9.0.34"


def test_a_plan_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_plan(tmp_path / "nowhere" / "model.plan", b"plan", FACTS)
    (tmp_path / "model.plan").mkdir()
    with pytest.raises(IsADirectoryError):
        write_plan(tmp_path / "model.plan", b"plan", FACTS)
    assert [path.name for path in tmp_path.iterdir()] == ["model.plan"]
