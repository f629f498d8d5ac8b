"""Names of files that models and their configurations give."""

from __future__ import annotations

import os
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predictd.server.config.file_names import check_file_name


@pytest.mark.parametrize("name", ["model.onnx", "parts/a.bin", "..data/x", "a b", "é.txt", "x" * 200, "./a"])
def test_names_inside_of_the_folder(name: str) -> None:
    check_file_name(name)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "not an empty string"),
        ("/etc/shadow", "leads out of the model's folder"),
        ("../x", "leads out of the model's folder"),
        ("a/../../x", "leads out of the model's folder"),
        ("a/..", "leads out of the model's folder"),
        (".", "leads out of the model's folder"),
        ("a\0b", "characters that cannot be seen"),
        ("a\nb", "characters that cannot be seen"),
        ("a\x1b[2J", "characters that cannot be seen"),
        ("gpj.\u202eonnx", "characters that cannot be seen"),
        ("a\u200bb", "characters that cannot be seen"),
        ("a\udc80", "characters that cannot be seen"),
        ("é" * 513, "longer than 1024 bytes"),
    ],
)
def test_all_others_are_refused_in_one_line(name: str, why: str) -> None:
    with pytest.raises(ValueError, match=why) as caught:
        check_file_name(name)
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 700


@given(st.text(alphabet=st.sampled_from("./a\\\0\n\u202e"), max_size=12))
def test_what_is_let_through_lies_in_the_folder(name: str) -> None:
    try:
        check_file_name(name)
    except ValueError:
        return
    joined = os.path.normpath(f"/folder/{name}")
    assert PurePosixPath(joined).is_relative_to("/folder")
    assert joined != "/folder"
