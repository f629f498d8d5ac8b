"""A candidate's daemon: a real `predictd serve` on free ports, with the settings of one trial."""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from predictd.server.config.settings import DEFAULT, Settings, options
from predictd.server.launch.spawn import die_with_parent
from predictd.server.tune.callers import TrialError

_COMMAND = "predictd.server.cli.main"
_STOP_SECONDS = 15.0
_POLL_SECONDS = 0.005
# What is said of a trial's daemon here, and what says nothing about how it serves. All else is as the user has it.
_OWN = frozenset(
    {
        *(
            "paths",
            "config",
            "grpc",
            "http",
            "ready_file",
            "tuned",
            "model_control",
            "load_model",
            "state_dir",
        ),
        *("tls_certificate", "tls_key", "tls_client_ca", "http_tls", "tokens"),
        *("allow_control", "strict", "lame_duck", "drain_timeout", "log_level"),
    }
)


def arguments(settings: Settings) -> list[str]:
    """What the user set for all daemons, as flags."""
    flags: list[str] = []
    for option in options():
        if option.key in _OWN or settings.origin(option.key) == DEFAULT:
            continue
        value = getattr(settings, option.field)
        if isinstance(value, bool):
            flags.append(option.flag if value else f"--no-{option.flag[2:]}")
        else:
            flags += (option.flag, option.kind.write(value))
    return flags


@contextmanager
def running(model: Path, more: Sequence[str], folder: Path, timeout_seconds: float) -> Iterator[str]:
    """Serve a model, and give the address of its gRPC.

    Args:
        model: The user's file or folder.
        more: Flags.
        folder: Where it runs; nobody else's, so that no predictd.toml is found.
        timeout_seconds: How long it may take until it is ready.

    Raises:
        TrialError: It is not ready in time, or cannot serve the model.
    """
    ready_file, log = folder / "ready.json", folder / "daemon.log"
    ready_file.unlink(missing_ok=True)
    command = [
        *(sys.executable, "-P", "-m", __name__, str(os.getpid()), "serve", str(model)),
        *("--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0", "--ready-file", str(ready_file)),
        *("--model-control", "none", "--drain-timeout", "5s", *more),
    ]
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            cwd=folder,
            env=_environment(os.environ),
            start_new_session=True,
        )
    try:
        yield _wait_ready(process, ready_file, log, time.monotonic() + timeout_seconds)
    finally:
        _stop(process)


def _environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Without what would configure the daemon: that is passed on as flags."""
    return {name: value for name, value in environ.items() if not name.startswith("PREDICTD_")}


def _wait_ready(process: subprocess.Popen[bytes], ready_file: Path, log: Path, until: float) -> str:
    while not ready_file.exists():
        if process.poll() is not None:
            raise TrialError(reason(log.read_text(errors="replace"), process.returncode))
        if time.monotonic() > until:
            raise TrialError("not ready in time")
        time.sleep(_POLL_SECONDS)
    return str(json.loads(ready_file.read_text())["grpc"])


def reason(log: str, status: int) -> str:
    """Why a daemon ended, from what it wrote: its last complaint."""
    complaints = []
    for line in log.splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            complaints.append(line)
            continue
        if isinstance(event, dict) and event.get("level") in ("error", "critical"):
            complaints.append(str(event.get("message", "")))
    last = complaints[-1] if complaints else f"the daemon ended with status {status}"
    return (
        last.removeprefix("predictd stops: ")
        .removeprefix("predictd: ")
        .removesuffix(" (no model can be served)")
    )


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Its children end when it does, whatever ends it."""
    try:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        # It had its time; what follows does not ask.
        pass
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


if __name__ == "__main__":
    # Not even when the search is killed does a daemon stay behind.
    die_with_parent(int(sys.argv[1]))
    del sys.argv[1]
    runpy.run_module(_COMMAND, run_name="__main__", alter_sys=True)
