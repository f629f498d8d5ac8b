"""How far links among the models may lead."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from predictd.server.repository.bounds import Bounds, roots
from predictd.server.repository.scan import scan
from tests.fixtures import models


def model_at(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    models.affine(path)


def repository(folder: Path, *names: str) -> Path:
    for name in names:
        model_at(folder / name / "1" / "model.onnx")
    return folder


def served(paths: tuple[Path, ...], *linked: Path) -> tuple[set[str], list[str]]:
    """Names of the models that are served, and what is said of the others."""
    found = Bounds(paths, linked).apply(scan(paths))
    return {model.name for model in found.models}, [str(problem) for problem in found.problems]


def test_links_inside_of_the_volume_are_followed(tmp_path: Path) -> None:
    # As a ConfigMap is mounted.
    volume = tmp_path / "config"
    model_at(volume / "..2026" / "m.onnx")
    (volume / "..data").symlink_to("..2026")
    (volume / "m.onnx").symlink_to("..data/m.onnx")
    assert served((volume,)) == ({"m"}, [])
    # As git-sync swaps.
    repository(tmp_path / "git" / ".worktrees" / "abc", "m")
    (tmp_path / "git" / "current").symlink_to(".worktrees/abc")
    assert served((tmp_path / "git" / "current",)) == ({"m"}, [])
    assert set(roots([tmp_path / "git" / "current"])) == {
        str(tmp_path / "git" / ".worktrees" / "abc"),
        str(tmp_path / "git"),
    }


def test_what_the_operator_names_by_a_link_is_what_the_link_leads_to(tmp_path: Path) -> None:
    repository(tmp_path / "disk" / "models", "m")
    (tmp_path / "srv").mkdir()
    link = tmp_path / "srv" / "models"
    link.symlink_to(tmp_path / "disk" / "models")
    assert roots([link]) == (str(tmp_path / "disk" / "models"),)
    assert served((link,)) == ({"m"}, [])
    assert "/" not in roots([Path("/"), link])[1:]


@pytest.mark.parametrize("what", ["model", "version", "file", "labels", "warm-up"])
def test_links_that_lead_elsewhere_keep_a_model_from_being_served(tmp_path: Path, what: str) -> None:
    outside = repository(tmp_path / "outside", "m") / "m"
    root = repository(tmp_path / "models", "good")
    match what:
        case "model":
            (root / "m").symlink_to(outside)
        case "version":
            (root / "m").mkdir()
            (root / "m" / "1").symlink_to(outside / "1")
        case "file":
            (root / "m" / "1").mkdir(parents=True)
            (root / "m" / "1" / "model.onnx").symlink_to(outside / "1" / "model.onnx")
        case "labels":
            repository(root, "m")
            (tmp_path / "secret").write_text("root:x")
            (root / "m" / "names.txt").symlink_to(tmp_path / "secret")
            (root / "m" / "model.toml").write_text('outputs = { y = { labels_file = "names.txt" } }\n')
        case _:
            repository(root, "m")
            (root / "m" / "warm.npz").symlink_to("/dev/zero")
            (root / "m" / "model.toml").write_text('warmup = { file = "warm.npz" }\n')
    names, problems = served((root,))
    assert names == {"good"}
    assert len(problems) == 1
    assert "a link out of the folders that are served" in problems[0]
    if what in ("model", "version", "file"):
        assert served((root,), tmp_path / "outside") == ({"good", "m"}, [])


def test_a_neighbour_whose_name_begins_alike_is_elsewhere(tmp_path: Path) -> None:
    repository(tmp_path / "models-secret", "m")
    root = repository(tmp_path / "models", "good")
    (root / "m").symlink_to("../models-secret/m")
    assert served((root,))[0] == {"good"}


def test_the_folders_of_a_list_are_what_the_operator_named(tmp_path: Path) -> None:
    base = repository(tmp_path / "data", "m") / "m"
    listed = tmp_path / "models.config"
    listed.write_text(f'model_config_list {{ config {{ name: "m" base_path: "{base}" }} }}')
    assert served((listed,)) == ({"m"}, [])


def test_a_single_file_may_have_what_lies_beside_it(tmp_path: Path) -> None:
    model_at(tmp_path / "store" / "m.onnx")
    (tmp_path / "here").mkdir()
    link = tmp_path / "here" / "m.onnx"
    link.symlink_to(tmp_path / "store" / "m.onnx")
    assert served((link,)) == ({"m"}, [])
    assert set(roots([link])) == {str(tmp_path / "store"), os.path.realpath(tmp_path / "here")}
