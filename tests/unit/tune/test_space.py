"""What is worth a try, by machine, model and what the user left open."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from predictd.server.config.tuned import TUNABLE
from predictd.server.tune.candidate import DEFAULT, Candidate
from predictd.server.tune.space import Subject, stages

TWO = Subject(suffix=".onnx", cores=2, cpus=2, callers=64, max_batch_size=32)


def moves(subject: Subject) -> dict[str, list[Any]]:
    return {stage.name: [dict(move) for move in stage.moves] for stage in stages(subject)}


def test_two_cores() -> None:
    assert moves(TWO) == {
        "engine": [{"engine": "openvino"}],
        "instances and threads": [{"instances": 2}, {"threads": 1}, {"instances": 2, "threads": 2}],
        "spinning": [{"spin": False}],
        "batch size": [{"max_batch_size": size} for size in (1, 4, 8, 16, 64)],
        "delay": [{"max_delay_ns": delay} for delay in (500_000, 2_000_000, 5_000_000)],
    }


def test_one_cpu_has_nothing_to_share_out() -> None:
    assert "instances and threads" not in moves(replace(TWO, cores=1, cpus=1))


def test_siblings_and_many_cores() -> None:
    found = moves(replace(TWO, cores=24, cpus=48))["instances and threads"]
    assert [move["instances"] for move in found if "threads" not in move] == [2, 4, 8, 16, 24]
    assert {"threads": 48} in found
    assert {"threads": 12} in found


def test_a_model_that_does_not_batch_has_no_batches_to_tune() -> None:
    assert moves(replace(TWO, batches=False)).keys() == {"engine", "instances and threads", "spinning"}


def test_only_engines_that_serve_the_file_are_tried() -> None:
    assert "engine" not in moves(replace(TWO, suffix=".xml"))


def test_allocators_are_tried_where_they_are_installed() -> None:
    assert moves(replace(TWO, allocators=("jemalloc",)))["allocator"] == [{"allocator": "jemalloc"}]


def test_no_delay_beyond_half_of_what_is_allowed() -> None:
    found = moves(replace(TWO, slo_ns=5_000_000))["delay"]
    assert found == [{"max_delay_ns": 500_000}, {"max_delay_ns": 2_000_000}]


def test_no_batch_beyond_the_callers() -> None:
    assert moves(replace(TWO, callers=8))["batch size"] == [{"max_batch_size": size} for size in (1, 4, 8)]


def test_what_the_user_said_stays() -> None:
    # Threads and instances are said together, in `held`.
    kept = frozenset({"threads", "instances", "max_delay_ns"})
    assert moves(replace(TWO, held=kept)).keys() == {"engine", "spinning", "batch size"}


def test_only_what_is_asked_for() -> None:
    only = replace(TWO, only={"max_delay_ns": (7,)})
    assert moves(only) == {"delay": [{"max_delay_ns": 7}]}
    assert moves(replace(TWO, only={"instances": ()})) == {"instances and threads": [{"instances": 2}]}
    both = replace(TWO, only={"instances": (1, 3), "threads": (2,)})
    assert moves(both) == {
        "instances and threads": [{"instances": 1, "threads": 2}, {"instances": 3, "threads": 2}]
    }


@given(
    st.integers(1, 256),
    st.integers(1, 2),
    st.integers(1, 1024),
    st.sets(st.sampled_from(TUNABLE)),
    st.booleans(),
)
def test_every_machine_has_a_small_space_without_the_default_and_without_what_is_held(
    cores: int, siblings: int, callers: int, held: set[str], batches: bool
) -> None:
    subject = replace(
        TWO, cores=cores, cpus=cores * siblings, callers=callers, batches=batches, held=frozenset(held)
    )
    for stage in stages(subject):
        found = [Candidate.of(move) for move in stage.moves]
        assert 0 < len(found) <= 16
        assert len(set(found)) == len(found)
        assert DEFAULT not in found
        assert not any(held & move.keys() for move in stage.moves)


def test_a_candidate_is_its_settings_whatever_their_order() -> None:
    one = Candidate.of({"threads": 1, "instances": 2})
    assert one == Candidate.of({"instances": 2, "threads": 1})
    assert str(one) == "instances 2, threads 1"
    assert str(one.after({"max_delay_ns": 2_000_000, "spin": False, "threads": 3})) == (
        "instances 2, threads 3, spin false, max_delay 2ms"
    )
    assert str(DEFAULT) == "default"
