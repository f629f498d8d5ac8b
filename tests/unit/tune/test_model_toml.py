"""The table [tuned] in a model's own file: everything else stays byte for byte."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predictd.server.config.model_file import read_model_file
from predictd.server.config.tuned import Here, Tuned
from predictd.server.tune.model_toml import WriteError, model_toml, with_table, write_table

TUNED = Tuned(Here("x86_64-a-b", 2), {"engine": "onnxruntime", "spin": False, "max_delay_ns": 2_000_000})
OTHER = Tuned(Here("aarch64-c", 64), {"threads": 3})
TABLE = '[tuned]\ncpu = "x86_64-a-b"\ncpus = 2\nengine = "onnxruntime"\nspin = false\nmax_delay = "2ms"\n'
USERS = """
    # mine
max_batch_size = 8   # eight

[parameters]
graph_optimization_level = "all"
text = '''
[tuned]
not a table
'''
[ labels ]
stable = 1
"""


def test_a_file_that_says_nothing() -> None:
    text = with_table("", TUNED)
    assert text.endswith(TABLE)
    assert text.startswith("#")


@pytest.mark.parametrize("text", ["max_batch_size = 8", USERS, USERS.replace("\n", "\r\n"), "# mine\n\n\n"])
def test_what_the_user_wrote_stays(text: str) -> None:
    if "'''" in text:
        # A table's header in the middle of a string is no header.
        text = text.replace("[tuned]\n", "[tuned\n").replace("[tuned]\r\n", "[tuned\r\n")
    written = with_table(text, TUNED)
    assert written.startswith(text)
    assert tomllib.loads(written.replace("\r\n", "\n"))["tuned"]["max_delay"] == "2ms"
    # Again and again: the table is replaced, and nothing grows.
    assert with_table(written, TUNED) == written
    assert with_table(with_table(written, OTHER), TUNED) == written


def test_a_table_in_the_middle_is_replaced_where_it_stands() -> None:
    before, after = "threads = 2\n", "\n# of the labels\n[labels]\nstable = 1 # yes\n"
    written = with_table(f"{before}[ tuned ] # gone\nthreads = 9\n{after}", TUNED)
    assert written.startswith(before)
    assert written.endswith(after)
    assert TABLE in written
    assert "gone" not in written


@pytest.mark.parametrize(
    "text", ["tuned = {threads = 1}\n", "tuned.threads = 1\n", '["tuned"]\nthreads = 1\n', USERS]
)
def test_what_cannot_be_replaced_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="remove it by hand"):
        with_table(text, TUNED)


@given(st.text(st.sampled_from('[]tuned"= \n#a1\r')))
def test_whatever_is_there_it_is_kept_or_refused(text: str) -> None:
    try:
        old = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    try:
        new = tomllib.loads(with_table(text, TUNED))
    except ValueError:
        return
    assert {**old, "tuned": None} == {**new, "tuned": None}


def test_the_file_is_replaced_behind_a_link_with_its_mode(tmp_path: Path) -> None:
    real, link = tmp_path / "real.toml", tmp_path / "model.toml"
    real.write_text("threads = 2\n")
    real.chmod(0o640)
    link.symlink_to(real)
    write_table(link, TUNED)
    assert link.is_symlink()
    assert real.stat().st_mode & 0o777 == 0o640
    reading = read_model_file(link)
    assert reading.notices == ()
    assert (reading.config.threads, reading.config.tuned) == (2, TUNED)
    assert {path.name for path in tmp_path.iterdir()} == {"real.toml", "model.toml"}


def test_what_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(WriteError, match=r"nowhere/model.toml: no such file"):
        write_table(tmp_path / "nowhere" / "model.toml", TUNED)
    bad = tmp_path / "bad.toml"
    bad.write_text("tuned = 1")
    with pytest.raises(WriteError, match=r"bad.toml: .*by hand"):
        write_table(bad, TUNED)
    assert bad.read_text() == "tuned = 1"


def test_where_it_stands(tmp_path: Path) -> None:
    for file in ("a.onnx", "1/a.onnx", "a/model.onnx", "a/1/model.onnx", "2/1/model.onnx"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    assert model_toml("a", 1, tmp_path / "a.onnx") == tmp_path / "a.toml"
    assert model_toml("a", 1, tmp_path / "1" / "a.onnx") == tmp_path / "1" / "a.toml"
    assert model_toml("a", 1, tmp_path / "a" / "model.onnx") == tmp_path / "a" / "model.toml"
    assert model_toml("a", 1, tmp_path / "a" / "1" / "model.onnx") == tmp_path / "a" / "model.toml"
    assert model_toml("2", 1, tmp_path / "2" / "1" / "model.onnx") == tmp_path / "2" / "model.toml"
    # An engine of somebody's own loads the folder.
    assert model_toml("a", 1, tmp_path / "a") == tmp_path / "a" / "model.toml"
