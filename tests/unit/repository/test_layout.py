from __future__ import annotations

import pytest

from predictd.server.config.units import LARGEST
from predictd.server.repository.layout import (
    LayoutError,
    Listing,
    check_name,
    is_plain_model,
    looks_like_version,
    model_entry,
    version_of,
    visible,
)


@pytest.mark.parametrize("name", ["a", "_x", "7", "resnet-50_v1.5", "A" * 256])
def test_names_that_clients_can_call(name: str) -> None:
    check_name(name)


@pytest.mark.parametrize("name", ["", ".x", "-x", "a b", "a/b", "ü", "a\n", "A" * 257])
def test_names_that_they_cannot(name: str) -> None:
    with pytest.raises(LayoutError, match="cannot be a model's name"):
        check_name(name)


@pytest.mark.parametrize(("name", "version"), [("1", 1), ("1584023012", 1584023012), (str(LARGEST), LARGEST)])
def test_versions(name: str, version: int) -> None:
    assert looks_like_version(name)
    assert version_of(name) == version


@pytest.mark.parametrize("name", ["0", "01", "v2", "1.0", str(LARGEST + 1), "9" * 40])
def test_folders_that_seem_to_be_meant_as_versions_are_told_why_they_are_none(name: str) -> None:
    assert looks_like_version(name)
    with pytest.raises(LayoutError, match="not a version"):
        version_of(name)


@pytest.mark.parametrize("name", ["", "assets", "v", "version1", "1a", "-1", "\u0663"])
def test_other_folders_are_no_versions(name: str) -> None:
    assert not looks_like_version(name)


@pytest.mark.parametrize(
    ("name", "seen"), [("a", True), (".git", False), ("..data", False), ("lost+found", False)]
)
def test_hidden_entries_and_debris_are_not_seen(name: str, *, seen: bool) -> None:
    assert visible(name) is seen


@pytest.mark.parametrize(
    ("files", "engine", "entry"),
    [
        (("a.onnx", "model.onnx"), None, "model.onnx"),
        (("a.onnx", "a.onnx.data"), None, "a.onnx"),
        (("model.onnx", "model.onnx.data"), "own:load", "model.onnx"),
        (("model.pt", "labels.txt", "model.toml"), "own:load", "model.pt"),
        (("model.bin", "model.xml"), "own:load", None),
        (("model.bin", "model.onnx", "model.xml"), None, "model.onnx"),
        (("model.bin", "model.onnx", "model.xml"), "openvino", "model.xml"),
        (("a.onnx", "model.bin", "model.xml"), None, "model.xml"),
        (("a.bin", "a.onnx", "a.xml"), None, "a.onnx"),
        (("a.bin", "a.onnx", "a.xml"), "openvino", "a.xml"),
        (("model.pt",), None, "model.pt"),
        (("a.pt2",), None, "a.pt2"),
        (("model.onnx",), "openvino", "model.onnx"),
        (("weights.npz",), "own:load", None),
        ((), "own:load", None),
    ],
)
def test_what_is_loaded_from_a_version_s_folder(
    files: tuple[str, ...], engine: str | None, entry: str | None
) -> None:
    assert model_entry(Listing(files=files), engine=engine) == entry


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ((), "no model: put model.onnx here"),
        (("weights.h5",), "no model: put model.onnx here"),
        (("a.xml", "b.xml"), "several .xml files: name the one to serve model.xml"),
        (("a.onnx", "b.onnx"), "several .onnx files: name the one to serve model.onnx"),
        (("saved_model.pb",), "a TensorFlow SavedModel: convert it to model.onnx"),
    ],
)
def test_a_folder_from_which_nothing_can_be_loaded(files: tuple[str, ...], message: str) -> None:
    with pytest.raises(LayoutError, match=message):
        model_entry(Listing(files=files))


@pytest.mark.parametrize(
    ("listing", "named", "entry"),
    [
        (Listing(files=("a.onnx", "model.onnx")), "a.onnx", "a.onnx"),
        (Listing(files=("model.plan",)), "model.plan", "model.plan"),
        (Listing(folders=("parts",)), "parts/a.onnx", "parts/a.onnx"),
        (Listing(folders=("a.onnx",)), "a.onnx", "a.onnx/model.onnx"),
        (Listing(folders=("model.onnx",)), None, "model.onnx/model.onnx"),
    ],
)
def test_a_configuration_may_name_the_file_and_a_folder_may_hold_its_data(
    listing: Listing, named: str | None, entry: str
) -> None:
    assert model_entry(listing, named=named) == entry


def test_a_named_file_that_is_not_there() -> None:
    with pytest.raises(LayoutError, match=r"no b\.onnx: the model's configuration names it"):
        model_entry(Listing(files=("a.onnx",)), named="b.onnx")


@pytest.mark.parametrize(
    ("listing", "plain"),
    [
        (Listing(files=("model.onnx", "tokenizer.json")), True),
        (Listing(files=("a.onnx", "model.toml")), True),
        (Listing(files=("model.toml",)), True),
        (Listing(files=("config.pbtxt",)), True),
        (Listing(files=("model.bin", "model.xml")), True),
        (Listing(files=("model.onnx", "model.xml")), True),
        (Listing(files=("a.onnx", "a.xml", "model.toml")), True),
        (Listing(files=("a.onnx", "model.xml")), False),
        (Listing(files=("a.onnx",)), False),
        (Listing(files=("a.onnx", "model.onnx")), False),
        (Listing(files=("a.onnx", "model.onnx", "model.toml")), False),
        (Listing(folders=("resnet",), files=("model.onnx",)), False),
        (Listing(), False),
    ],
)
def test_a_folder_is_one_model_or_a_repository(listing: Listing, *, plain: bool) -> None:
    assert is_plain_model(listing) is plain
