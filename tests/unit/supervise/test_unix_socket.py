from __future__ import annotations

import socket
import stat
from pathlib import Path

import pytest

from predictd.server.supervise import unix_socket
from predictd.server.supervise.ports import AddressError


def test_a_path_that_is_free_is_taken_and_made_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert unix_socket.claim(Path("s")) == tmp_path / "s"
    assert not (tmp_path / "s").exists()


def test_what_a_dead_daemon_left_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    assert stat.S_ISSOCK(path.stat().st_mode)
    unix_socket.claim(path)
    assert not path.exists()


def test_a_living_process_keeps_its_socket(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as alive:
        alive.bind(str(path))
        alive.listen()
        with pytest.raises(AddressError, match=f"^{path} is already in use by another process$"):
            unix_socket.claim(path)
    assert path.exists()


def test_a_file_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_text("precious")
    with pytest.raises(AddressError, match="is there and is no socket"):
        unix_socket.claim(path)
    assert path.read_text() == "precious"


@pytest.mark.parametrize(
    ("name", "message"), [("x" * 200, "longer than the 107 bytes"), ("no/s", "there is no folder .*/no$")]
)
def test_a_path_that_cannot_be_is_refused(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(AddressError, match=message):
        unix_socket.claim(tmp_path / name)


def test_at_the_end_it_is_gone_also_if_it_was_before(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.touch()
    unix_socket.remove(path)
    unix_socket.remove(path)
    assert not path.exists()
