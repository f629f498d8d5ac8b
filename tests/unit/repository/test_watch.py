"""What a look sees, and when what it sees may be loaded."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from predictd.server.repository.reconcile import Content, Wanted
from predictd.server.repository.watch import QUIET_SECONDS, Sight, Sighting, decide, look
from tests.fixtures import models

NOW = 1_000_000_000.0
LONG_AGO = NOW - 60


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "models"
    version(root, 1)
    return root


def version(root: Path, number: int, scale: float = 2.0, when: float = LONG_AGO) -> Path:
    """A version of the model `m`, last written then."""
    path = root / "m" / str(number) / "model.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    models.affine(path, scale)
    written(path, when)
    return path


def written(path: Path, when: float) -> None:
    os.utime(path, (when, when))


def see(root: Path, now: float = NOW) -> Sight:
    return look([root], now)


def print_of(sight: Sight, number: int = 1) -> str:
    return sight.versions["m", number].fingerprint


def serving(sight: Sight) -> dict[tuple[str, int], str]:
    return {key: one.fingerprint for key, one in sight.versions.items()}


# Fingerprints -------------------------------------------------------------------------------------------------


def test_what_does_not_change_has_the_same_fingerprint(root: Path) -> None:
    assert print_of(see(root)) == print_of(see(root, NOW + 100))


@pytest.mark.parametrize("place", ["m.xml", "m/model.xml", "m/1/model.xml"])
def test_the_weights_beside_a_model_belong_to_it(place: str, tmp_path: Path) -> None:
    path = tmp_path / "models" / place
    path.parent.mkdir(parents=True)
    path.write_text('<net name="m" version="11"><data offset="8" size="4"/></net>')
    written(path, LONG_AGO)
    weights = path.with_suffix(".bin")

    def sighting() -> Sighting:
        return see(tmp_path / "models").versions["m", 1]

    absent = sighting()
    assert absent.broken == f"{path}: no {weights.name} beside it: an OpenVINO model is two files; copy both"
    weights.write_bytes(bytes(11))
    written(weights, LONG_AGO)
    short = sighting()
    assert (
        short.broken == f"{path}: {weights.name} is cut short: 11 of 12 bytes are there: copy the model again"
    )
    weights.write_bytes(bytes(12))
    written(weights, NOW)
    fresh = sighting()
    assert (fresh.broken, fresh.quiet) == ("", False)
    written(weights, LONG_AGO)
    assert sighting().settled
    assert len({absent.fingerprint, short.fingerprint, fresh.fingerprint, sighting().fingerprint}) == 4


def test_other_content_times_or_files_beside_it_change_the_fingerprint(root: Path) -> None:
    path = root / "m" / "1" / "model.onnx"
    seen = [print_of(see(root))]
    written(path, LONG_AGO + 1)
    seen.append(print_of(see(root)))
    path.with_name("weights.bin").write_bytes(b"w")
    seen.append(print_of(see(root)))
    path.with_name("weights.bin").write_bytes(b"ww")
    seen.append(print_of(see(root)))
    (root / "m" / "model.toml").write_text("max_batch_size = 3\n")
    seen.append(print_of(see(root)))
    # The same bytes and times in another file: it was moved over the old one.
    other = root.parent / "other.onnx"
    other.write_bytes(path.read_bytes())
    written(other, LONG_AGO + 1)
    other.replace(path)
    seen.append(print_of(see(root)))
    assert len(set(seen)) == len(seen)


def test_another_version_and_another_model_change_nothing(root: Path) -> None:
    before = print_of(see(root))
    version(root, 2)
    (root / "m" / "model.toml").write_text('version_policy = "all"\nmax_batch_size = 4\n')
    configured = print_of(see(root))
    models.affine(root / "n.onnx")
    (root / "m" / "3").mkdir()
    sight = see(root)
    assert before != configured == print_of(sight)
    assert print_of(sight, 2) != configured


def test_a_file_that_goes_while_it_is_looked_at_is_no_known_content(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = print_of(see(root))

    def gone(_: Path) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "iterdir", gone)
    first, second = see(root), see(root)
    assert len({before, print_of(first), print_of(second)}) == 3


# At rest and whole --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("age", "quiet"), [(0.0, False), (QUIET_SECONDS / 2, False), (QUIET_SECONDS, True), (-3600.0, True)]
)
def test_content_is_quiet_a_moment_after_the_last_write(root: Path, age: float, quiet: bool) -> None:
    """A clock that is wrong, as that of another machine may be, holds nothing up for ever."""
    written(root / "m" / "1" / "model.onnx", NOW - age)
    assert see(root).versions["m", 1].quiet is quiet


def test_a_file_beside_the_model_that_is_written_counts_too(root: Path) -> None:
    beside = root / "m" / "1" / "weights.bin"
    beside.write_bytes(b"w")
    written(beside, NOW - 0.1)
    assert not see(root).versions["m", 1].settled


def test_a_file_cut_short_is_broken_and_one_of_an_engine_of_ones_own_is_not_looked_into(root: Path) -> None:
    path = root / "m" / "1" / "model.onnx"
    path.write_bytes(path.read_bytes()[:-1])
    written(path, LONG_AGO)
    sighting = see(root).versions["m", 1]
    assert (sighting.quiet, sighting.settled) == (True, False)
    assert "cut short" in sighting.broken
    (root / "m" / "model.toml").write_text('engine = "some.module:load"\n')
    assert see(root).versions["m", 1].broken == ""


# Decisions ----------------------------------------------------------------------------------------------------


def test_at_the_start_and_when_asked_everything_is_taken_as_it_is(root: Path) -> None:
    written(root / "m" / "1" / "model.onnx", NOW)
    sight = see(root)
    decision = decide(None, sight, {})
    assert (decision.held, decision.wanted) == (False, {"m": Wanted((Content(1, print_of(sight)),))})


def test_a_new_version_is_wanted_at_the_second_look_and_the_old_one_until_then(root: Path) -> None:
    first = see(root)
    now_serving = serving(first)
    version(root, 2)
    second, third = see(root), see(root)
    held = decide(first, second, now_serving)
    assert (held.held, held.wanted) == (True, {"m": Wanted((Content(1, print_of(first)),))})
    taken = decide(second, third, now_serving)
    assert (taken.held, taken.wanted) == (False, {"m": Wanted((Content(2, print_of(third, 2)),))})


def test_a_slow_copy_is_not_wanted_before_it_is_whole(root: Path) -> None:
    first = see(root)
    now_serving = serving(first)
    old = {"m": Wanted((Content(1, print_of(first)),))}
    path = version(root, 2)
    data = path.read_bytes()
    before = first
    for at in range(1, 5):
        path.write_bytes(data[: len(data) * at // 5])
        # Each chunk is followed by two looks: while it is new, and after a long pause of the copy.
        written(path, NOW + 100 * at)
        for now in (NOW + 100 * at + 0.1, NOW + 100 * at + 50):
            sight = see(root, now)
            assert decide(before, sight, now_serving).wanted == old
            before = sight
    path.write_bytes(data)
    written(path, NOW + 1000)
    for now, there in ((NOW + 1000.1, False), (NOW + 1000.4, False), (NOW + 1002, True), (NOW + 1003, True)):
        sight = see(root, now)
        decision = decide(before, sight, now_serving)
        assert (decision.wanted == old) is not there
        assert decision.held is not there
        before = sight


def test_what_is_broken_and_at_rest_is_not_waited_for(root: Path) -> None:
    first = see(root)
    path = version(root, 2)
    path.write_bytes(path.read_bytes()[:-1])
    written(path, LONG_AGO)
    second = see(root)
    decision = decide(first, second, serving(first))
    assert (decision.held, decision.wanted["m"].contents) == (False, (Content(1, print_of(first)),))


def test_new_content_of_a_version_waits_too(root: Path) -> None:
    first = see(root)
    version(root, 1, scale=9.0, when=NOW - 0.1)
    second = see(root)
    assert decide(first, second, serving(first)).wanted["m"].contents == (Content(1, print_of(first)),)
    third, fourth = see(root, NOW + 2), see(root, NOW + 3)
    assert decide(third, fourth, serving(first)).wanted["m"].contents == (Content(1, print_of(fourth)),)


@pytest.mark.parametrize("text", ["max_batch_sise = 3\n", "not toml", 'engine = "tensorrt"\n'])
def test_a_model_whose_configuration_is_wrong_serves_on_as_it_is(root: Path, text: str) -> None:
    first = see(root)
    (root / "m" / "model.toml").write_text(text)
    decision = decide(first, see(root), serving(first))
    assert decision.wanted == {"m": Wanted((Content(1, print_of(first)),))}


def test_a_model_that_is_gone_is_not_wanted(root: Path) -> None:
    models.affine(root / "n.onnx")
    first = see(root)
    (root / "n.onnx").unlink()
    assert decide(first, see(root), serving(first)).wanted.keys() == {"m"}


def test_a_path_that_cannot_be_read_takes_nothing_away(root: Path) -> None:
    first = see(root)
    root.rename(root.with_name("elsewhere"))
    sight = see(root)
    assert sight.scan.blind
    assert decide(first, sight, serving(first)).wanted == {"m": Wanted((Content(1, print_of(first)),))}


def test_a_list_of_models_that_cannot_be_read_takes_nothing_away(root: Path) -> None:
    listed = root.parent / "models.config"
    entry = f'config {{ name: "m" base_path: "{root / "m"}" }}'
    listed.write_text(f"model_config_list {{ {entry} }}")
    first = look([listed], NOW)
    wanted = decide(None, first, {}).wanted
    assert wanted.keys() == {"m"}
    for text in ("model_config_list {", f"model_config_list {{ {entry[:-1]} no_such_field: 1 }} }}"):
        listed.write_text(text)
        assert decide(first, look([listed], NOW), serving(first)).wanted == wanted


# What the configuration names and asks for ----------------------------------------------------------------------


def test_a_labels_file_that_is_edited_is_new_content_and_one_that_is_gone_is_a_state(root: Path) -> None:
    (root / "m" / "model.toml").write_text('[outputs.y]\nlabels_file = "labels.txt"\n')
    labels = root / "m" / "labels.txt"
    absent = [print_of(see(root)), print_of(see(root))]
    labels.write_text("cat\n")
    written(labels, LONG_AGO)
    first = print_of(see(root))
    labels.write_text("dog\n")
    written(labels, NOW - QUIET_SECONDS / 2)
    assert len({*absent, first, print_of(see(root))}) == 3
    assert not see(root).versions["m", 1].quiet


def test_how_versions_are_swapped_changes_nothing_in_them(root: Path) -> None:
    before = see(root)
    (root / "m" / "model.toml").write_text('swap = "resource"\n')
    after = see(root)
    assert print_of(after) == print_of(before)
    contents = (Content(1, print_of(before)),)
    assert decide(before, before, serving(before)).wanted == {"m": Wanted(contents)}
    assert decide(before, after, serving(before)).wanted == {
        "m": Wanted(contents, preserve_availability=False)
    }


@pytest.mark.parametrize(
    ("policy", "kept"),
    [("{latest = 1}", [3]), ("{latest = 2}", [2, 3]), ('"all"', [1, 2, 3]), ("{specific = [1, 3]}", [1, 3])],
)
def test_a_served_version_that_cannot_be_read_counts_as_if_it_could(
    root: Path, policy: str, kept: list[int]
) -> None:
    (root / "m" / "model.toml").write_text(f"version_policy = {policy}\n")
    version(root, 2)
    path = version(root, 3)
    before = see(root)
    path.rename(root.parent / "aside")
    path.symlink_to("nowhere")
    now = see(root)
    wanted = decide(before, now, serving(before)).wanted["m"].contents
    assert sorted(content.version for content in wanted) == kept
    assert Content(3, print_of(before, 3)) in wanted
    # One that was not served is no reason to keep anything.
    others = {key: value for key, value in serving(now).items() if key != ("m", 3)}
    assert 3 not in {content.version for content in decide(now, now, others).wanted["m"].contents}
