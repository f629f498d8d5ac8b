"""Which result of tuning counts, and what it may set."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from predictd.server.config.model_config import ModelConfig, Origin
from predictd.server.config.resolve import resolve
from predictd.server.config.tuned import TUNABLE, Here, Tuned, TunedValue, table_of
from predictd.server.repository.models import FoundModel
from predictd.server.repository.scan import scan
from predictd.server.repository.tuning import (
    AUTO,
    OFF,
    TunedError,
    TunedResults,
    explicit_settings,
    held,
    model_key,
    read_result,
    result_file,
    with_tuned,
)

HERE, THERE = Here("this", 4), Here("that", 4)
VALUES: dict[str, TunedValue] = {"engine": "onnxruntime", "instances": 2, "threads": 1, "max_batch_size": 8}
ORIGIN = Origin(Path("/somewhere.json"))


@pytest.fixture(name="model")
def _model(tmp_path: Path) -> Path:
    path = tmp_path / "models" / "m"
    (path / "1").mkdir(parents=True)
    (path / "1" / "model.onnx").write_bytes(b"content")
    return path


def save(path: Path, model: Path, tuned: Tuned, key: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"model": {"key": key or model_key(model / "1" / "model.onnx")}, "tuned": table_of(tuned)}
    path.write_text(json.dumps(content))
    return path


def apply(
    model: Path, folder: Path | None, choice: Path | str = AUTO, **explicit: object
) -> tuple[FoundModel, list[str]]:
    found = TunedResults(choice, folder, HERE, explicit).apply(scan([model]))
    (only,) = found.models
    return only, [str(warning) for warning in found.warnings]


def in_cache(folder: Path, model: Path, here: Here = HERE, values: Any = VALUES) -> Path:
    key = model_key(model / "1" / "model.onnx")
    return save(result_file(folder, key, here), model, Tuned(here, values))


def test_without_any_result_nothing_changes(model: Path, tmp_path: Path) -> None:
    found, warnings = apply(model, tmp_path / "cache")
    assert (found.file, warnings) == (ModelConfig(), [])
    assert apply(model, None)[0].file == ModelConfig()


def test_a_result_in_the_cache_is_found_by_content(model: Path, tmp_path: Path) -> None:
    path = in_cache(tmp_path, model)
    found, warnings = apply(model, tmp_path)
    assert (found.file.instances, found.file.threads, found.file.max_batch_size) == (2, 1, 8)
    assert found.file.tuned == Tuned(HERE, VALUES)
    assert found.file.origins["threads"] == Origin(path)
    assert warnings == []
    (model / "1" / "model.onnx").write_bytes(b"another")
    assert apply(model, tmp_path)[0].file == ModelConfig()


def test_a_folder_is_a_content_too(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "a").write_bytes(b"1")
    first = model_key(folder)
    (folder / "sub" / "a").rename(folder / "sub" / "b")
    assert model_key(folder) != first
    assert first.startswith("1-")


def test_the_models_own_file_comes_before_the_cache(model: Path, tmp_path: Path) -> None:
    in_cache(tmp_path, model)
    own = '[tuned]\ncpu = "this"\ncpus = 4\nmax_delay = "2ms"\n'
    (model / "model.toml").write_text(own)
    found, _ = apply(model, tmp_path)
    assert (found.file.max_delay_ns, found.file.instances) == (2_000_000, None)
    assert found.file.origins["max_delay_ns"] == Origin(model / "model.toml", 1)
    # One of another CPU says nothing here, and what is in the cache does.
    (model / "model.toml").write_text(own.replace("this", "that"))
    found, warnings = apply(model, tmp_path)
    assert (found.file.max_delay_ns, found.file.instances, warnings) == (None, 2, [])


def test_results_of_another_machine_are_ignored_with_one_warning(model: Path, tmp_path: Path) -> None:
    in_cache(tmp_path, model, THERE)
    found, (warning,) = apply(model, tmp_path)
    assert found.file == ModelConfig()
    assert "tuned on that with 4 CPUs, and this is this with 4 CPUs: ignored" in warning
    assert "predictd tune" in warning
    (model / "model.toml").write_text('[tuned]\ncpu = "this"\ncpus = 64\nthreads = 64\n')
    found, (warning,) = apply(model, None)
    assert (found.file.threads, found.file.tuned) == (None, None)
    assert warning.startswith(f"{model / 'model.toml'}:1: tuned on this with 64 CPUs")


def test_off_is_off(model: Path, tmp_path: Path) -> None:
    in_cache(tmp_path, model, THERE)
    (model / "model.toml").write_text('[tuned]\ncpu = "this"\ncpus = 4\nthreads = 1\n')
    found, warnings = apply(model, tmp_path, OFF)
    assert (found.file, warnings) == (ModelConfig(), [])


def test_a_file_that_is_given_comes_first(model: Path, tmp_path: Path) -> None:
    in_cache(tmp_path, model)
    given = save(tmp_path / "given.json", model, Tuned(HERE, {"threads": 3}))
    found, _ = apply(model, tmp_path, given)
    assert (found.file.threads, found.file.instances) == (3, None)
    save(given, model, Tuned(HERE, {"threads": 3}), key="1-other")
    found, (warning,) = apply(model, tmp_path, given)
    assert found.file == ModelConfig()
    assert "for another model than m" in warning


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"model": {"key": "k"}}', '{"model": {"key": "k"}, "tuned": {"cpu": "c", "threads": 0}}'],
)
def test_what_is_no_result_is_refused_where_it_is_given_and_ignored_in_the_cache(
    text: str, model: Path, tmp_path: Path
) -> None:
    path = in_cache(tmp_path, model)
    path.write_text(text)
    with pytest.raises(TunedError, match=path.name):
        read_result(path)
    with pytest.raises(TunedError, match=path.name):
        TunedResults(path, None, HERE, {})
    found, (warning,) = apply(model, tmp_path)
    assert found.file == ModelConfig()
    assert "ignored" in warning


def test_a_result_that_appears_while_the_daemon_runs_is_for_the_next_start(
    model: Path, tmp_path: Path
) -> None:
    in_cache(tmp_path, model, THERE)
    results = TunedResults(AUTO, tmp_path, HERE, {})
    before = results.apply(scan([model])).models
    in_cache(tmp_path, model)
    assert results.apply(scan([model])).models == before
    assert apply(model, tmp_path)[0].file.tuned is not None


def test_the_users_own_words_win() -> None:
    def values(config: ModelConfig, **explicit: object) -> dict[str, object]:
        found = with_tuned(config, Tuned(HERE, VALUES), ORIGIN, explicit)
        return {} if found.tuned is None else dict(found.tuned.values)

    assert values(ModelConfig()) == VALUES
    assert values(ModelConfig(max_batch_size=3)).keys() == VALUES.keys() - {"max_batch_size"}
    # A share of the cores and who shares them belong together.
    assert values(ModelConfig(threads=3)).keys() == {"engine", "max_batch_size"}
    assert values(ModelConfig(), instances=3).keys() == {"engine", "max_batch_size"}
    assert "max_batch_size" not in values(ModelConfig(preferred_batch_sizes=(16,)))
    # Another engine is another thing altogether.
    assert values(ModelConfig(engine="openvino")) == {}
    assert values(ModelConfig(), engine="openvino") == {}
    assert "engine" not in values(ModelConfig(engine="onnxruntime"))
    kept = with_tuned(ModelConfig(max_batch_size=3), Tuned(HERE, VALUES), ORIGIN, {})
    assert (kept.max_batch_size, kept.instances) == (3, 2)
    assert kept.origins.keys() == VALUES.keys() - {"max_batch_size"}


def test_what_was_set_is_known_by_its_origin(tmp_path: Path) -> None:
    settings = resolve({"threads": "3"}, {"PREDICTD_MAX_DELAY": "1ms"}, tmp_path)
    assert explicit_settings(settings) == {"threads": 3, "max_delay_ns": 1_000_000}
    assert held(ModelConfig(), explicit_settings(settings)) == {"threads", "instances", "max_delay_ns"}
    assert held(replace(ModelConfig(), spin=True), {}) == {"spin"}
    assert held(ModelConfig(), dict.fromkeys(TUNABLE)) == set(TUNABLE)
