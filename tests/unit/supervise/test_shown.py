"""What operators are told of a model's settings."""

from __future__ import annotations

from pathlib import Path

from predictd.server.config.model_config import overlay
from predictd.server.config.model_file import read_model_file
from predictd.server.config.resolve import resolve
from predictd.server.repository.override import read_override
from predictd.server.supervise.shown import shown_settings
from tests.fixtures.supervision import lane_config

FILE = """
max_batch_size = 8
max_delay = "2ms"
swap = "resource"
version_policy = {specific = [1, 3]}
preferred_batch_sizes = [2, 4]
labels = {stable = 1}
default_timeout = "50ms"
spin = true
warmup = {mode = "zeros"}
[outputs.y]
labels_file = "labels.txt"
[parameters]
graph_optimization_level = "basic"
"""


def test_each_setting_has_its_value_and_its_place(tmp_path: Path) -> None:
    path = tmp_path / "model.toml"
    path.write_text(FILE)
    file = overlay(read_model_file(path).config, read_override('{"max_batch_size": 5}', "m"))
    settings = resolve({"max_request_rows": "99"}, {"PREDICTD_THREADS": "2"}, tmp_path)
    shown = {
        one.name: (one.value, one.origin)
        for one in shown_settings(file, settings, lane_config(1), instances=3)
    }
    lane = lane_config(1)
    assert shown == {
        "default_deadline": ("0s", "default"),
        "default_timeout": ("50ms", "model.toml:8"),
        "instances": ("3", "plan"),
        "max_batch_size": (str(lane.max_batch_size), "given when it was loaded"),
        "max_delay": ("0s", "model.toml:3"),
        "max_queue_bytes": ("0", "default"),
        "max_queue_size": (str(lane.max_queue_size), "default"),
        "max_request_rows": (str(lane.max_request_rows), "--max-request-rows"),
        "outputs": ("y", "model.toml:11"),
        "parameters": ("graph_optimization_level=basic", "model.toml:13"),
        "preferred_batch_sizes": ("2, 4", "model.toml:6"),
        "run_timeout": ("1m", "default"),
        "spin": ("true", "model.toml:9"),
        "swap": ("resource", "model.toml:4"),
        "threads": (str(lane.threads), "PREDICTD_THREADS"),
        "version_policy": ("specific 1, 3", "model.toml:5"),
        "warmup": ("zeros", "model.toml:10"),
    }


def test_a_long_value_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "model.toml"
    path.write_text("[parameters]\n" + "".join(f"key_{number} = 1\n" for number in range(100)))
    settings = resolve({}, {}, tmp_path)
    shown = shown_settings(read_model_file(path).config, settings, lane_config(1), instances=1)
    (value,) = [one.value for one in shown if one.name == "parameters"]
    assert (len(value), value[-1]) == (200, "…")
