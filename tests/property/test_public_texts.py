"""What clients see of a text that was written for operators."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from predictd.server.observe.public_text import of_engine, without_paths

NAMES = st.text(alphabet="abcXYZ019_-.", min_size=1, max_size=8).filter(lambda name: name.strip("."))
PATHS = st.lists(NAMES, min_size=2, max_size=5).map(lambda parts: "/" + "/".join(parts))
WORDS = st.text(alphabet="abc 012,:()'", max_size=12)
# What no client may see.
INTERNAL = re.compile(r"(?<![\w.])/[\w.-]+/[\w.-]|Traceback|0x[0-9a-f]{6,}|\w\.(?:py|cc|cpp|h):\d")


@given(before=WORDS, path=PATHS, after=WORDS)
def test_no_absolute_path_is_left(before: str, path: str, after: str) -> None:
    for around in (f"{before} {path} {after}", f"{before}'{path}'{after}", f"{before}({path}:12){after}"):
        told = without_paths(around)
        assert path not in told
        assert not re.search(r"(?<!\w)/\w", told)
        assert path.rpartition("/")[2] in told


@given(folder=PATHS, name=NAMES, file=NAMES)
def test_of_a_path_in_the_repository_the_rest_is_left(folder: str, name: str, file: str) -> None:
    assert without_paths(f"{folder}/{name}/{file}: cut short", [folder, "/"]) == f"{name}/{file}: cut short"


@given(WORDS.filter(lambda text: "/" not in text))
def test_texts_without_paths_stay_as_they_are(text: str) -> None:
    assert without_paths(text, ["/models"]) == text


@given(path=PATHS, line=st.integers(1, 9999), address=st.integers(2**24, 2**47))
def test_what_engines_say_of_themselves_is_left_out(path: str, line: int, address: int) -> None:
    said = f"Add node '{path}': {path}.cc:{line} op.h:{line} bool F() at {address:#x}: shapes {{2}} and {{3}}"
    told = of_engine(said)
    assert not INTERNAL.search(told), told
    assert told.startswith("Add: ")
    assert told.endswith("shapes {2} and {3}")


def test_numbers_and_names_with_a_slash_are_no_paths() -> None:
    text = "model 'team/resnet' took 1/2 of 3 rows/s at batch 4 / 8"
    assert of_engine(text) == text
