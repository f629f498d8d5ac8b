"""How far a build is, from the phases that TensorRT tells of."""

from hypothesis import given
from hypothesis import strategies as st

from predictd.engines.tensorrt.progress import BuildProgress, Phases


def test_what_is_left_is_what_the_innermost_phase_says() -> None:
    phases = Phases(0.0)
    phases.start("build", None, 2, 0.0)
    phases.step("build", 0, 4.0)
    phases.start("tactics", "build", 10, 4.0)
    for step in range(5):
        phases.step("tactics", step, 4.0 + 2 * (step + 1))
    # Five steps of two seconds; no step of the build comes after this one.
    assert phases.progress(14.0) == BuildProgress(14.0, 14 / 24, 10.0)
    phases.finish("tactics")
    phases.step("build", 1, 24.0)
    assert phases.progress(24.0) == BuildProgress(24.0, 1.0, 0.0)


def test_later_steps_are_reckoned_like_earlier_ones() -> None:
    phases = Phases(0.0)
    phases.start("build", None, 3, 0.0)
    phases.step("build", 0, 10.0)
    assert phases.progress(10.0).left_seconds == 20.0
    phases.start("inner", "build", 2, 10.0)
    phases.step("inner", 0, 11.0)
    assert phases.progress(11.0).left_seconds == 1.0 + 10.0


def test_nothing_is_said_before_something_is_known() -> None:
    phases = Phases(0.0)
    assert phases.progress(5.0) == BuildProgress(5.0)
    phases.start("build", None, 3, 5.0)
    assert phases.progress(6.0) == BuildProgress(6.0, 0.0, None)
    phases.step("of another build", 3, 6.0)
    phases.finish("of another build")
    assert phases.progress(6.0).left_seconds is None


@given(
    st.lists(st.tuples(st.sampled_from(("start", "step", "finish")), st.integers(0, 3), st.integers(0, 20)))
)
def test_whatever_is_told_it_never_goes_back_nor_beyond(events: list[tuple[str, int, int]]) -> None:
    phases, now, before = Phases(0.0), 0.0, 0.0
    for kind, depth, number in events:
        now += number / 7
        name = f"phase {depth}"
        if kind == "start":
            phases.start(name, f"phase {depth - 1}" if depth else None, number, now)
        elif kind == "step":
            phases.step(name, number, now)
        else:
            phases.finish(name)
        progress = phases.progress(now)
        done = progress.done or 0.0
        assert before <= done <= 1
        assert (progress.left_seconds or 0.0) >= 0
        before = done


def test_a_line_says_what_is_known() -> None:
    assert str(BuildProgress(75.2)) == "building the TensorRT plan, 75 s so far"
    assert (
        str(BuildProgress(75.2, 0.423, 130.0))
        == "building the TensorRT plan, 75 s so far, 42% done, about 2 min 10 s left"
    )
    assert str(BuildProgress(3.0, waits=True)).startswith(
        "waiting for the TensorRT plan that another process"
    )
