from __future__ import annotations

from pathlib import Path

import pytest

from predictd.server.config import labels
from predictd.server.config.labels import LabelsError, read_labels


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ("cat\ndog\n", ("cat", "dog")),
        ("cat\r\ndog", ("cat", "dog")),
        ("cat\n\ndog\n\n", ("cat", "", "dog", "")),
        ("two words\x0b\u2028\n", ("two words\x0b\u2028",)),
    ],
)
def test_a_line_is_a_name(content: str, names: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_bytes(content.encode())
    assert read_labels(path).names == names


def test_equal_files_have_equal_digests(tmp_path: Path) -> None:
    digests = []
    for name, content in (("a", "cat\n"), ("b", "cat\n"), ("c", "dog\n")):
        (tmp_path / name).write_text(content)
        digests.append(read_labels(tmp_path / name).digest)
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize(
    ("content", "what"),
    [(b"\xff", "not UTF-8 text"), (b" \n", "no label in it"), (b"x" * 65, "more than 0 MiB")],
)
def test_what_is_no_list_of_labels_is_refused(
    content: bytes, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(labels, "LABELS_LIMIT_BYTES", 64)
    path = tmp_path / "labels.txt"
    path.write_bytes(content)
    with pytest.raises(LabelsError, match=f"^{what}: "):
        read_labels(path)
