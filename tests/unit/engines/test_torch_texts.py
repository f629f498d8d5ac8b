"""What the PyTorch engine says and how it reads names, files and shapes: all that needs no PyTorch."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from predictd.engines.api import EngineError, InvalidInputError, ModelLoadError
from predictd.engines.torch.archive import Archive, archive_of
from predictd.engines.torch.messages import one_line, run_error
from predictd.engines.torch.naming import indexed, places
from predictd.engines.torch.program import Shape, batch_symbol

INTERPRETER = """\
The following operation failed in the TorchScript interpreter.
Traceback of TorchScript, serialized code (most recent call last):
  File "code/__torch__.py", line 14, in forward
    y = (b).forward((c).forward(image, ), )
                     ~~~~~~~~~~ <--- HERE

Traceback of TorchScript, original code (most recent call last):
  File "/home/me/train.py", line 8, in forward
        return s.b(s.c(image))
                   ~~~ <--- HERE
"""


@pytest.mark.parametrize(
    ("text", "reason", "kind"),
    [
        (
            f"{INTERPRETER}RuntimeError: Given groups=1, weight of size [8, 3], expected 3 channels, but got 4\n",
            "Given groups=1, weight of size [8, 3], expected 3 channels, but got 4",
            InvalidInputError,
        ),
        (f"{INTERPRETER}RuntimeError: AssertionError: too many\n", "too many", InvalidInputError),
        (f"{INTERPRETER}builtins.ValueError: no good\n", "no good", InvalidInputError),
        (
            f"{INTERPRETER}RuntimeError: index out of range in self\n",
            "index out of range in self",
            InvalidInputError,
        ),
        (f"{INTERPRETER}RuntimeError: two\n  lines\n", "two lines", EngineError),
        ("could not create a primitive", "could not create a primitive", EngineError),
        (
            "The size of tensor a (8) must match\nException raised from f at x.cpp:3 (most recent call first):\nframe",
            "The size of tensor a (8) must match",
            InvalidInputError,
        ),
        (
            "[enforce fail at alloc_cpu.cpp:66] . DefaultCPUAllocator: can't allocate memory: you tried size 9",
            "[enforce fail at alloc_cpu.cpp:66] . DefaultCPUAllocator: can't allocate memory: you tried size 9",
            EngineError,
        ),
        ("", "no reason given", EngineError),
    ],
)
def test_an_error_is_one_line_and_blames_the_right_one(
    text: str, reason: str, kind: type[EngineError]
) -> None:
    error = run_error(RuntimeError(text))
    assert (str(error), type(error)) == (reason, kind)


def test_a_guard_of_an_exported_program_blames_the_input() -> None:
    assert isinstance(run_error(AssertionError("x is no good")), InvalidInputError)


def test_texts_of_the_loader_are_cut_to_their_reason() -> None:
    assert one_line("Unknown builtin op: a::b.\nIt may not exist.\n:\n  File x\n") == (
        "Unknown builtin op: a::b. It may not exist"
    )
    assert one_line("failed locating file: not found. This is an internal miniz error. If you") == (
        "failed locating file: not found"
    )
    assert len(one_line("x" * 5000)) == 403


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["b", "a"], [1, 0]),
        (["c"], [2]),
        (["IN__2", "IN__0"], [2, 0]),
        (["image", "other"], [0, 1]),
        (["a", "other"], [0, 1]),
        ([], []),
    ],
)
def test_names_are_those_of_the_model_or_numbered_or_in_order(names: Sequence[str], found: list[int]) -> None:
    assert places("input", names, ["a", "b", "c"]) == found


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["IN__0", "IN__3"], "input 'IN__3': the model has no such input; it has 'a', 'b', 'c'"),
        (["p", "q", "r", "s"], "input 's': the model has no such input; it has 'a', 'b', 'c'"),
        (["IN__1", "X__1"], "two inputs have the same number in 'IN__1', 'X__1'"),
    ],
)
def test_names_that_mean_nothing_are_refused(names: Sequence[str], reason: str) -> None:
    with pytest.raises(ModelLoadError) as caught:
        places("input", names, ["a", "b", "c"])
    assert str(caught.value) == reason


def test_only_a_number_after_two_underscores_is_one() -> None:
    assert indexed(["a__1", "b__x"]) is None
    assert indexed(["a__1", "__0"]) == [1, 0]


@pytest.mark.parametrize(
    ("inputs", "outputs", "symbol"),
    [
        ([("s0", 3)], [("s0",)], "s0"),
        ([("s0", "s1")], [("s0", "s1*2")], "s0"),
        ([("s0", 3), ("s1", 3)], [("s0", 3)], None),
        ([("s0", 3)], [("s0", "s0")], None),
        ([("s0", 3)], [("s0", "2*s0")], None),
        ([("s0", 3)], [("2*s0", 3)], None),
        ([("2*s0",)], [("2*s0",)], None),
        ([("s0", 3)], [()], None),
        ([(4, 3)], [(4, 3)], None),
        ([], [("s0",)], None),
    ],
)
def test_the_batch_dimension_is_one_symbol(
    inputs: Sequence[Shape], outputs: Sequence[Shape], symbol: str | None
) -> None:
    assert batch_symbol(inputs, outputs) == symbol


def archive(path: Path, *names: str) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name in names:
            file.writestr(name, b"")
    return path


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (["m/constants.pkl", "m/data.pkl", "m/code/__torch__.py"], Archive.TORCHSCRIPT),
        (["m/models/model.json", "m/data/weights/weight_0"], Archive.EXPORTED),
        (["version", "serialized_exported_program.json"], Archive.EXPORTED),
    ],
)
def test_an_archive_is_known_by_its_content(names: Sequence[str], kind: Archive, tmp_path: Path) -> None:
    assert archive_of(archive(tmp_path / "m", *names)) is kind


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["m/data.pkl", "m/data/0"], "pickled objects, which may run anything"),
        (
            ["m/models/model.json", "m/data/constants/opaque_obj_0"],
            "an exported program with pickled objects",
        ),
        (
            ["m/data/aotinductor/model/x.so", "m/archive_format"],
            "a package of AOTInductor, which is native code",
        ),
        (["m/README"], "neither a TorchScript nor an exported program"),
    ],
)
def test_what_could_run_code_is_refused(names: Sequence[str], reason: str, tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=reason):
        archive_of(archive(tmp_path / "m", *names))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "neither a TorchScript nor an exported program"),
        (b"hello", "neither a TorchScript nor an exported program"),
        (b"\x80\x02.", "pickled objects, which may run anything"),
    ],
)
def test_what_is_no_archive_is_refused(content: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    path.write_bytes(content)
    with pytest.raises(ModelLoadError, match=reason):
        archive_of(path)


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"^No such file or directory$"):
        archive_of(tmp_path / "m.pt")
    with pytest.raises(ModelLoadError, match=r"^Is a directory$"):
        archive_of(tmp_path)
