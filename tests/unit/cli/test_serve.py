from __future__ import annotations

import shlex
import sys
from pathlib import Path
from types import ModuleType

import pytest

from predictd.server.cli.main import main
from predictd.server.config.request_log import RequestLogRule
from predictd.server.config.settings import Settings, options
from predictd.server.config.units import Address


class Daemon(ModuleType):
    """Stands in for the supervisor."""

    def __init__(self) -> None:
        super().__init__("predictd.server.supervise.daemon")
        self.runs: list[Settings] = []
        self.code = 0

    def run(self, settings: Settings) -> int:
        self.runs.append(settings)
        return self.code


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Daemon:
    stand_in = Daemon()
    monkeypatch.setitem(sys.modules, stand_in.__name__, stand_in)
    for option in options():
        monkeypatch.delenv(option.variable, raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.onnx").touch()
    return stand_in


def serve(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int | str | None:
    monkeypatch.setattr(sys, "argv", ["predictd", "serve", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    return caught.value.code


def test_every_flag_reaches_the_daemon(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "other.toml").write_text("")
    (tmp_path / "l").mkdir()
    words = shlex.split(
        "m.onnx --config other.toml --grpc [::]:0 --unix u --http :0 --frontend grpcio --frontends 2 "
        "--instances 3 --threads 4 "
        "--engine openvino --while-building onnxruntime "
        "--max-batch-size 5 --max-delay 6ms --max-queue-size 7 --max-request-rows 8 "
        "--max-queue-bytes 15MiB --max-concurrent-per-client 16 --default-deadline 17s "
        "--max-connection-age 18s --max-connection-age-grace 19s --max-connection-idle 20s "
        "--max-concurrent-streams 21 --handshake-timeout 22s --keepalive-time 23s --keepalive-timeout 24s "
        "--min-ping-interval 25s --max-ping-strikes 26 --max-connections 27 --upload-limit 29MiB "
        "--max-metadata-size 28KiB --max-message-size 9KiB --max-response-size 10KiB "
        "--arena-keep 9s --unread-limit 11MiB "
        "--arena-limit 10MiB --tfs-tensor-content --tfs-unready-labels --pools shared --allocator jemalloc "
        "--model-control explicit --load-model a --load-model * "
        "--tls-certificate t.pem --tls-key t.key --tls-client-ca a.pem --http-tls off --tokens t.toml "
        "--load-timeout 11s --run-timeout 15s --hang-timeout 16s --lame-duck 12s --drain-timeout 13s --strict "
        "--ready-file r.json --state-dir s --cache-dir c --cache-limit 14GiB --tuned off --log-level debug "
        "--request-log 5/s --linked-dir l --worker-sandbox off --worker-user nobody:0 ."
    )
    assert serve(monkeypatch, *words) == 0
    (settings,) = daemon.runs
    assert settings == Settings(
        paths=(Path("m.onnx"), Path()),
        config=Path("other.toml"),
        grpc=Address("::", 0),
        unix=Path("u"),
        http=Address("127.0.0.1", 0),
        frontend="grpcio",
        frontends=2,
        instances=3,
        threads=4,
        engine="openvino",
        while_building="onnxruntime",
        max_batch_size=5,
        max_delay_ns=6 * 10**6,
        max_queue_size=7,
        max_queue_bytes=15 * 2**20,
        max_concurrent_per_client=16,
        default_deadline_ns=17 * 10**9,
        max_connection_age_ns=18 * 10**9,
        max_connection_age_grace_ns=19 * 10**9,
        max_connection_idle_ns=20 * 10**9,
        max_concurrent_streams=21,
        max_connections=27,
        max_metadata_bytes=28 * 2**10,
        handshake_timeout_ns=22 * 10**9,
        keepalive_time_ns=23 * 10**9,
        keepalive_timeout_ns=24 * 10**9,
        min_ping_interval_ns=25 * 10**9,
        max_ping_strikes=26,
        max_request_rows=8,
        max_message_bytes=9 * 2**10,
        max_response_bytes=10 * 2**10,
        arena_limit_bytes=10 * 2**20,
        arena_keep_ns=9 * 10**9,
        unread_limit_bytes=11 * 2**20,
        upload_limit_bytes=29 * 2**20,
        tfs_tensor_content=True,
        tfs_unready_labels=True,
        pools="shared",
        allocator="jemalloc",
        model_control="explicit",
        load_model=("a", "*"),
        tls_certificate=Path("t.pem"),
        tls_key=Path("t.key"),
        tls_client_ca=Path("a.pem"),
        http_tls="off",
        tokens=Path("t.toml"),
        load_timeout_ns=11 * 10**9,
        run_timeout_ns=15 * 10**9,
        hang_timeout_ns=16 * 10**9,
        lame_duck_ns=12 * 10**9,
        drain_timeout_ns=13 * 10**9,
        strict=True,
        ready_file=Path("r.json"),
        state_dir=Path("s"),
        linked_dir=(Path("l"),),
        worker_sandbox="off",
        worker_user="nobody:0",
        cache_dir=Path("c"),
        cache_limit_bytes=14 * 2**30,
        tuned="off",
        log_level="debug",
        request_log=RequestLogRule(per_second=5),
    )
    # Which the tokens exclude.
    assert set(settings.origins) == {option.key for option in options()} - {"allow_control"}


def test_the_environment_and_the_file_of_the_working_folder_count(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "predictd.toml").write_text('paths = ["m.onnx"]\nthreads = 1\ninstances = 1\n')
    monkeypatch.setenv("PREDICTD_INSTANCES", "2")
    assert serve(monkeypatch) == 0
    (settings,) = daemon.runs
    assert ([p.name for p in settings.paths], settings.threads, settings.instances) == (["m.onnx"], 1, 2)


def test_the_daemon_s_exit_code_is_the_command_s(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    daemon.code = 3
    assert serve(monkeypatch, "m.onnx") == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "no PATH: give a model file, a model's folder or a repository"),
        (("m.onnx", "nix"), "nix: no such file or directory"),
        (("m.onnx/x",), "m.onnx/x: not a directory"),
        (("m.onnx", "--linked-dir", "nix"), "nix: no such file or directory"),
        (("m.onnx", "--max-delay", "10"), "--max-delay: '10' has no unit; write for example 10ms"),
        (("m.onnx", "--threads", "-1"), "--threads: -1 is too small: the least is 1"),
        (("m.onnx", "--config", "nix.toml"), "nix.toml: no such file or directory"),
    ],
)
def test_wrong_settings_are_one_line_and_exit_code_2(
    arguments: tuple[str, ...],
    message: str,
    daemon: Daemon,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert serve(monkeypatch, *arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"predictd serve: {message}")
    assert captured.err.count("\n") == 1
    assert daemon.runs == []


def test_elsewhere_than_on_linux_it_says_so_in_one_line(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert serve(monkeypatch, "m.onnx") == 1
    assert capsys.readouterr().err == "predictd: the daemon is for Linux; predictd.client works here\n"
    assert daemon.runs == []


def test_the_help_shows_each_flag_with_its_default(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert serve(monkeypatch, "--help") == 0
    shown = " ".join(capsys.readouterr().out.split())
    for option in options():
        if option.key != "paths":
            assert f" {option.flag} " in shown
            assert f"{option.help} [default: {option.default_text}]" in shown.replace("start- up", "start-up")
