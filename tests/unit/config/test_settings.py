from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from predictd.server.config.errors import ConfigError
from predictd.server.config.option import Option
from predictd.server.config.options_table import defaults_table
from predictd.server.config.request_log import RequestLogRule
from predictd.server.config.resolve import resolve
from predictd.server.config.settings import Settings, options
from predictd.server.config.units import Address

DOCUMENTATION = Path(__file__).parents[3] / "docs" / "configuration.md"


def write(folder: Path, text: str) -> Path:
    path = folder / "predictd.toml"
    path.write_text(text)
    return path


def test_with_nothing_given_every_value_is_its_default(tmp_path: Path) -> None:
    settings = resolve({}, {}, tmp_path)
    assert settings == Settings()
    assert settings.grpc == Address("127.0.0.1", 8001)
    assert settings.http == Address("127.0.0.1", 8002)
    assert (settings.max_batch_size, settings.max_delay_ns, settings.max_queue_size) == (32, 0, 1024)
    assert (settings.max_request_rows, settings.max_message_bytes) == (4096, 256 * 2**20)
    assert {settings.origin(option.key) for option in options()} == {"default"}


def test_a_flag_beats_the_environment_beats_the_file_beats_the_default(tmp_path: Path) -> None:
    path = write(tmp_path, 'max_delay = "1ms"\nmax_batch_size = 1\nmax_queue_size = 1\n')
    environ = {"PREDICTD_MAX_DELAY": "2ms", "PREDICTD_MAX_BATCH_SIZE": "2"}
    settings = resolve({"max_delay": "3ms"}, environ, tmp_path)
    found = (settings.max_delay_ns, settings.max_batch_size, settings.max_queue_size, settings.threads)
    assert found == (3_000_000, 2, 1, None)
    keys = ("max_delay", "max_batch_size", "max_queue_size", "threads")
    assert [settings.origin(key) for key in keys] == [
        "--max-delay",
        "PREDICTD_MAX_BATCH_SIZE",
        str(path),
        "default",
    ]


# For each key: a text, the value that it means, and the same in TOML.
SAMPLES: dict[str, tuple[str, Any, str]] = {
    "unix": ("/run/s", Path("/run/s"), '"/run/s"'),
    "paths": ("/a", (Path("/a"),), '["/a"]'),
    "grpc": ("[::]:0", Address("::", 0), '"[::]:0"'),
    "http": (":9", Address("127.0.0.1", 9), '":9"'),
    "frontend": ("grpcio", "grpcio", '"grpcio"'),
    "frontends": ("3", 3, "3"),
    "instances": ("3", 3, "3"),
    "threads": ("3", 3, "3"),
    "max_queue_bytes": ("3MiB", 3 * 2**20, '"3MiB"'),
    "max_concurrent_per_client": ("3", 3, "3"),
    "default_deadline": ("3s", 3 * 10**9, '"3s"'),
    "while_building": ("onnxruntime", "onnxruntime", '"onnxruntime"'),
    "max_connection_age": ("3s", 3 * 10**9, '"3s"'),
    "max_connection_age_grace": ("3s", 3 * 10**9, '"3s"'),
    "max_connection_idle": ("3s", 3 * 10**9, '"3s"'),
    "max_concurrent_streams": ("3", 3, "3"),
    "max_connections": ("3", 3, "3"),
    "upload_limit": ("3KiB", 3 * 2**10, '"3KiB"'),
    "max_metadata_size": ("3KiB", 3 * 2**10, '"3KiB"'),
    "handshake_timeout": ("3s", 3 * 10**9, '"3s"'),
    "keepalive_time": ("3s", 3 * 10**9, '"3s"'),
    "keepalive_timeout": ("3s", 3 * 10**9, '"3s"'),
    "min_ping_interval": ("3s", 3 * 10**9, '"3s"'),
    "max_ping_strikes": ("3", 3, "3"),
    "engine": ("openvino", "openvino", '"openvino"'),
    "max_batch_size": ("64", 64, "64"),
    "max_delay": ("500us", 500_000, '"500us"'),
    "max_queue_size": ("9", 9, "9"),
    "max_request_rows": ("9", 9, "9"),
    "max_message_size": ("1MiB", 2**20, '"1MiB"'),
    "max_response_size": ("2MiB", 2**21, '"2MiB"'),
    "arena_limit": ("1GiB", 2**30, "1073741824"),
    "arena_keep": ("5s", 5 * 10**9, '"5s"'),
    "unread_limit": ("1MiB", 2**20, '"1MiB"'),
    "tfs_tensor_content": ("on", True, "true"),
    "tfs_unready_labels": ("on", True, "true"),
    "linked_dir": ("/a:/b c", (Path("/a"), Path("/b c")), '["/a", "/b c"]'),
    "worker_sandbox": ("require", "require", '"require"'),
    "worker_user": ("predictd:video", "predictd:video", '"predictd:video"'),
    "pools": ("shared", "shared", '"shared"'),
    "model_control": ("explicit", "explicit", '"explicit"'),
    "load_model": ("a, b,a", ("a", "b"), '["a", "b"]'),
    "allow_control": ("true", True, "true"),
    "tls_certificate": ("/etc/c.pem", Path("/etc/c.pem"), '"/etc/c.pem"'),
    "tls_key": ("/etc/k.pem", Path("/etc/k.pem"), '"/etc/k.pem"'),
    "tls_client_ca": ("/etc/a.pem", Path("/etc/a.pem"), '"/etc/a.pem"'),
    "http_tls": ("on", "on", '"on"'),
    "tokens": ("/etc/t.toml", Path("/etc/t.toml"), '"/etc/t.toml"'),
    "load_timeout": ("1m", 60 * 10**9, '"1m"'),
    "run_timeout": ("2m", 120 * 10**9, '"2m"'),
    "hang_timeout": ("3s", 3 * 10**9, '"3s"'),
    "lame_duck": ("5s", 5 * 10**9, '"5s"'),
    "drain_timeout": ("1h", 3600 * 10**9, '"1h"'),
    "strict": ("true", True, "true"),
    "ready_file": ("/run/r", Path("/run/r"), '"/run/r"'),
    "state_dir": ("/var/s", Path("/var/s"), '"/var/s"'),
    "cache_dir": ("/var/c", Path("/var/c"), '"/var/c"'),
    "allocator": ("jemalloc", "jemalloc", '"jemalloc"'),
    "cache_limit": ("1GiB", 2**30, '"1GiB"'),
    "tuned": ("/var/t.json", Path("/var/t.json"), '"/var/t.json"'),
    "log_level": ("debug", "debug", '"debug"'),
    "request_log": ("0.01", RequestLogRule(fraction=0.01), "0.01"),
}
# What else must be said for an option to mean something.
TLS = {"PREDICTD_TLS_CERTIFICATE": "c.pem", "PREDICTD_TLS_KEY": "k.pem"}
NEEDS = {
    "load_model": {"PREDICTD_MODEL_CONTROL": "explicit"},
    "tls_certificate": {"PREDICTD_TLS_KEY": "k.pem"},
    "tls_key": {"PREDICTD_TLS_CERTIFICATE": "c.pem"},
    "tls_client_ca": TLS,
    "http_tls": TLS,
}
IN_FILE = tuple(option for option in options() if option.in_file)


@pytest.mark.parametrize("option", IN_FILE, ids=lambda option: option.key)
def test_each_option_is_read_from_all_three_sources(option: Option, tmp_path: Path) -> None:
    text, value, toml = SAMPLES[option.key]
    empty = tmp_path / "empty"
    empty.mkdir()
    given: object = (text,) if option.key == "paths" else tuple(value) if option.key == "load_model" else text
    around = NEEDS.get(option.key, {})
    by_flag = resolve({option.key: given}, around, empty)
    by_variable = resolve({}, {option.variable: text} | around, empty)
    write(tmp_path, f"{option.key} = {toml}\n")
    by_file = resolve({}, around, tmp_path)
    assert value != option.default
    assert [getattr(found, option.field) for found in (by_flag, by_variable, by_file)] == [value] * 3
    for found in (by_flag, by_variable, by_file):
        changed = {f.name for f in dataclasses.fields(found) if getattr(found, f.name) != f.default}
        needed = {each.removeprefix("PREDICTD_").lower() for each in around}
        assert changed - {"origins", "config"} - needed == {option.field}


@pytest.mark.parametrize("option", [o for o in options() if o.default not in (None, ())], ids=lambda o: o.key)
def test_the_default_as_documented_reads_back(option: Option) -> None:
    assert option.kind.read(option.default_text) == option.default


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_dely = '1ms'", "unknown key 'max_dely'; did you mean 'max_delay'?"),
        ("max-delay = '1ms'", "unknown key 'max-delay'; did you mean 'max_delay'?"),
        ("zzz = 1", "unknown key 'zzz'"),
        ("config = 'x'", "unknown key 'config'"),
        ("[grpc]\nport = 1", 'grpc: expected a string "HOST:PORT", not a table'),
        ("grpc = 'localhost:99999'", "grpc: 'localhost:99999' has no port between 0 and 65535"),
        ("threads = '4'", 'threads: expected a whole number, or "auto", not a string'),
        ("threads = 0", "threads: 0 is too small: the least is 1"),
        ("threads = true", 'threads: expected a whole number, or "auto", not a boolean'),
        ("max_delay = 5", "max_delay: '5' has no unit"),
        ("max_delay = 0.5", 'max_delay: expected a duration such as "10ms", not a float'),
        ("max_delay = '-1ms'", "max_delay: '-1ms' is not a duration"),
        ("max_queue_size = -1", "max_queue_size: -1 is too small: the least is 1"),
        ("strict = 'yes'", "strict: expected true or false, not a string"),
        ("paths = 'x'", "paths: expected an array of paths, not a string"),
        ("pools = 'share'", "pools: 'share' is not one of auto, per-model, shared; did you mean 'shared'?"),
        ("load_timeout = 2020-01-01", "not a date or time"),
        ("threads = ", "not TOML: "),
    ],
)
def test_an_error_in_the_file_names_file_and_key(text: str, message: str, tmp_path: Path) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        resolve({}, {}, tmp_path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_error_in_a_flag_or_variable_names_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^--max-delay: '10' has no unit"):
        resolve({"max_delay": "10"}, {}, tmp_path)
    with pytest.raises(ConfigError, match=r"^PREDICTD_HTTP: 'x' has no port"):
        resolve({}, {"PREDICTD_HTTP": "x"}, tmp_path)


def test_the_file_can_be_named_by_flag_and_by_variable(tmp_path: Path) -> None:
    named, other = tmp_path / "named.toml", tmp_path / "other.toml"
    named.write_text("threads = 1")
    other.write_text("threads = 2")
    write(tmp_path, "threads = 3")
    assert resolve({"config": str(named)}, {"PREDICTD_CONFIG": str(other)}, tmp_path).threads == 1
    by_variable = resolve({}, {"PREDICTD_CONFIG": str(other)}, tmp_path)
    assert (by_variable.threads, by_variable.config) == (2, other)
    assert resolve({}, {}, tmp_path).threads == 3


def test_a_named_file_must_be_there(tmp_path: Path) -> None:
    missing = tmp_path / "missing.toml"
    with pytest.raises(ConfigError, match=r"missing\.toml: no such file or directory"):
        resolve({"config": str(missing)}, {}, tmp_path)
    with pytest.raises(ConfigError, match="is a directory"):
        resolve({"config": str(tmp_path)}, {}, tmp_path)


def test_a_file_that_is_no_text_is_an_error_of_that_file(tmp_path: Path) -> None:
    path = tmp_path / "predictd.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"predictd\.toml: not TOML"):
        resolve({}, {}, tmp_path)


def test_paths_in_the_file_are_relative_to_it_and_others_to_the_working_folder(tmp_path: Path) -> None:
    write(tmp_path, 'paths = ["models", "/m.onnx"]\nready_file = "ready.json"\n')
    settings = resolve({}, {}, tmp_path)
    assert settings.paths == (tmp_path / "models", Path("/m.onnx"))
    assert settings.ready_file == tmp_path / "ready.json"
    assert resolve({"paths": ("models",)}, {}, tmp_path).paths == (Path("models"),)


def test_an_empty_or_unknown_variable_is_as_good_as_none(tmp_path: Path) -> None:
    environ = {"PREDICTD_THREADS": "", "PREDICTD_PORT_8001_TCP": "tcp://10.0.0.1:8001"}
    assert resolve({}, environ, tmp_path) == Settings()


def test_auto_on_the_command_line_overrides_a_number_in_the_file(tmp_path: Path) -> None:
    write(tmp_path, "threads = 3\nstrict = true\n")
    settings = resolve({"threads": "auto", "strict": False}, {}, tmp_path)
    assert (settings.threads, settings.strict) == (None, False)
    assert settings.origin("strict") == "--strict"


def test_settings_that_contradict_each_other_are_refused_with_their_sources(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"grpc \(--grpc\) and http \(default\): both .* 127.0.0.1:8002"):
        resolve({"grpc": ":8002"}, {}, tmp_path)
    with pytest.raises(ConfigError, match=r"lame_duck \(PREDICTD_LAME_DUCK\) and drain_timeout \(default\)"):
        resolve({}, {"PREDICTD_LAME_DUCK": "31s"}, tmp_path)
    for flags, message in (
        ({"tls_key": "k"}, r"tls_key \(--tls-key\): tls_certificate is missing"),
        ({"tls_certificate": "c"}, r"tls_certificate \(--tls-certificate\): tls_key is missing"),
        ({"tls_client_ca": "a"}, r"tls_client_ca \(.*\): without tls_certificate nobody can show"),
        ({"http_tls": "on"}, r"http_tls \(--http-tls\): there is no tls_certificate"),
        (
            {"tokens": "t", "allow_control": True},
            r"allow_control \(.*\) and tokens \(.*\): with tokens, who has",
        ),
    ):
        with pytest.raises(ConfigError, match=message):
            resolve(flags, {}, tmp_path)
    both_free = resolve({"grpc": ":0", "http": ":0"}, {}, tmp_path)
    assert both_free.grpc == both_free.http


def test_the_table_has_each_option_once_and_escapes_its_bars() -> None:
    lines = defaults_table().splitlines()
    assert len(lines) == 2 + len(options())
    assert {line.replace("\\|", "").count("|") for line in lines} == {7}
    assert any(
        "| `--max-delay` | `PREDICTD_MAX_DELAY` | `max_delay` | `DURATION` | `0s` |" in li for li in lines
    )


@pytest.mark.skipif(not DOCUMENTATION.exists(), reason="docs/configuration.md is not in this tree")
def test_the_documentation_has_the_generated_table() -> None:
    assert defaults_table() in DOCUMENTATION.read_text()


def test_names_to_load_mean_nothing_where_all_is_loaded() -> None:
    with pytest.raises(ConfigError) as caught:
        resolve({"load_model": ("a",), "model_control": "none"}, {})
    assert str(caught.value) == (
        "load_model (--load-model): with model_control none every model is loaded; only explicit chooses"
    )


@pytest.mark.parametrize("text", [["a", ""], ["a", 1], "a,,b"])
def test_a_list_of_names_has_no_empty_one(text: object) -> None:
    kind = next(option.kind for option in options() if option.key == "load_model")
    with pytest.raises(ValueError, match="expected an array of names, none of them empty"):
        kind.read(text)
