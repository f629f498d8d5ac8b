"""What was set at run time outlives the daemon: whole or not at all, and never dropped in silence."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predictd.server.repository.traffic import Traffic
from predictd.server.supervise import state_file
from predictd.server.supervise.state_file import Loads, StateError, StateFile

SOME = {"m": Traffic({"canary": 3}, {3: 90, 4: 10}), "n": Traffic({"a.b-c": 2**62})}
# Ends between the writing of the new file and its taking the old one's place.
CRASH = """
import os, sys
from pathlib import Path
from predictd.server.repository.traffic import Traffic
from predictd.server.supervise.state_file import StateFile

state = StateFile(Path(sys.argv[1]))
Path.replace = lambda *_: os._exit(9)
state.write({"m": Traffic({"canary": 4})})
"""


def kept(folder: Path) -> Mapping[str, Traffic]:
    state = StateFile(folder)
    state.close()
    return state.traffic


def write(folder: Path, traffic: dict[str, Traffic]) -> None:
    state = StateFile(folder)
    state.write(traffic)
    state.close()


def test_a_folder_that_is_not_there_is_made_and_holds_nothing(tmp_path: Path) -> None:
    assert kept(tmp_path / "a" / "b") == {}


def test_what_is_written_is_read_at_the_next_start(tmp_path: Path) -> None:
    write(tmp_path, SOME)
    assert kept(tmp_path) == SOME
    write(tmp_path, {})
    assert kept(tmp_path) == {}


@given(
    st.dictionaries(
        st.text(),
        st.builds(
            Traffic,
            st.dictionaries(
                st.from_regex(r"[a-z][a-z0-9_.-]{0,63}", fullmatch=True), st.integers(1, 2**63 - 1)
            ),
            st.just({}) | st.integers(1, 99).map(lambda percent: {2**40: percent, 1: 100 - percent}),
        ),
        max_size=5,
    )
)
def test_any_settings_come_back_as_they_were(traffic: dict[str, Traffic]) -> None:
    loads = Loads(dict.fromkeys(traffic, '{"max_batch_size": 3}'), frozenset(traffic))
    assert state_file._read(state_file._encode(traffic, loads)) == (traffic, loads)


def test_loads_and_labels_are_kept_beside_each_other(tmp_path: Path) -> None:
    state = StateFile(tmp_path)
    state.write_loads(Loads().with_loaded({"m": "{}", "n": ""}))
    state.write(SOME)
    state.write_loads(state.loads.with_unloaded({"n", "o"}))
    state.close()
    state = StateFile(tmp_path)
    state.close()
    assert (state.traffic, state.loads) == (SOME, Loads({"m": "{}"}, frozenset({"n", "o"})))
    assert state.loads.with_loaded({"o": ""}) == Loads({"m": "{}", "o": ""}, frozenset({"n"}))


def test_a_crash_before_the_new_file_takes_its_place_leaves_the_old_one(tmp_path: Path) -> None:
    write(tmp_path, SOME)
    done = subprocess.run([sys.executable, "-c", CRASH, str(tmp_path)], check=False, timeout=60)
    assert done.returncode == 9
    assert (tmp_path / "state.json.new").exists()
    assert kept(tmp_path) == SOME
    write(tmp_path, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lock", "state.json"]


def test_what_is_written_is_on_disk_before_it_takes_the_old_ones_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def note_fsync(fd: int) -> None:
        done.append(Path(f"/proc/self/fd/{fd}").readlink().name)
        fsync(fd)

    def note_replace(one: Path, other: Path) -> Path:
        done.append("replace")
        return replace(one, other)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(Path, "replace", note_replace)
    write(tmp_path / "state", SOME)
    assert done == ["state.json.new", "replace", "state"]


def test_a_disk_that_is_full_refuses_and_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, os.strerror(28))

    write(tmp_path, SOME)
    state = StateFile(tmp_path)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StateError, match=r"state\.json cannot be written: no space left on device$"):
        state.write({})
    state.close()
    assert kept(tmp_path) == SOME


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Input data was truncated"),
        ("{", "Input data was truncated"),
        ("[]", "Expected `object`, got `array`"),
        ("{}", "Object missing required field `format`"),
        ('{"format": 2}', "it has format 2, and this version reads 1"),
        ('{"format": 1, "trafic": {}}', "Object contains unknown field `trafic`"),
        ('{"format": 1, "traffic": {"m": {"labels": {"a": "3"}}}}', "Expected `int`, got `str`"),
        ('{"format": 1, "traffic": {"m": {"labels": {"a b": 3}}}}', "'a b' cannot be a label"),
        ('{"format": 1, "traffic": {"m": {"labels": {"a": 0}}}}', "model 'm' cannot have a version 0"),
        ('{"format": 1, "traffic": {"m": {"split": [[1, 90]]}}}', "the shares make 90%, not 100%"),
        ('{"format": 1, "traffic": {"m": {"split": [[0, 100]]}}}', "model 'm' cannot have a version 0"),
        ('{"format": 1, "traffic": {"\udc00": {}}}', "'utf-8' codec can't decode"),
        (" " * (state_file.BYTES_MAX + 1), "is larger than"),
    ],
)
def test_a_file_that_is_not_understood_is_one_line_with_a_remedy(
    text: str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "state.json"
    path.write_bytes(text.encode(errors="surrogatepass"))
    with pytest.raises(StateError) as caught:
        StateFile(tmp_path)
    said = str(caught.value)
    assert said.startswith(f"{path} ")
    assert message in said
    assert said.endswith("repair it, or move it away to start without what was set at run time")
    assert "\n" not in said
    # The folder is free again: the remedy can be tried at once.
    path.unlink()
    assert kept(tmp_path) == {}


def test_a_folder_is_one_daemons_at_a_time(tmp_path: Path) -> None:
    state = StateFile(tmp_path)
    with pytest.raises(StateError, match=f"^the state folder {tmp_path} is used by another daemon$"):
        StateFile(tmp_path)
    state.close()
    assert kept(tmp_path) == {}


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(StateError, match=f"^the state folder {file} cannot be used: file exists$"):
        StateFile(file)
    (tmp_path / "state.json").mkdir()
    with pytest.raises(StateError, match=r"state\.json cannot be read: is a directory$"):
        StateFile(tmp_path)


def test_the_file_can_be_read_by_people(tmp_path: Path) -> None:
    write(tmp_path, SOME)
    text = (tmp_path / "state.json").read_text()
    assert json.loads(text)["traffic"]["m"] == {"labels": {"canary": 3}, "split": [[3, 90], [4, 10]]}
    assert text.endswith("}\n")
