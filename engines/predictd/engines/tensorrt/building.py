"""Having a plan built by a process of its own: what it is given, what it tells, and what its death means."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from typing import IO

from predictd.engines.api import LoadCancelledError
from predictd.engines.cancellation import Cancellation
from predictd.engines.tensorrt.build_messages import BuildRequest, Built, NotBuilt, news_from_json
from predictd.engines.tensorrt.build_options import BuildError
from predictd.engines.tensorrt.progress import BuildProgress

_MODULE = "predictd.engines.tensorrt.build"
_SAID_BYTES = 2000


def have_built(
    request: BuildRequest, report: Callable[[BuildProgress], None], cancel: Cancellation | None = None
) -> Built:
    """Have a plan built, and wait for it.

    Args:
        request: What to build.
        report: Told once a second how far it is, as long as it goes on.
        cancel: Gives it up.

    Raises:
        LoadCancelledError: It was given up.
        BuildError: It cannot be built, or the process that was to died.
    """
    with tempfile.TemporaryFile() as said:
        news_fd, write_fd = os.pipe()
        try:
            try:
                child = _start(request, write_fd, said)
            finally:
                os.close(write_fd)
            with child, (cancel or Cancellation()).calling(child.kill):
                try:
                    last = _listen(news_fd, report)
                except BaseException:
                    child.kill()
                    raise
                status = child.wait()
        finally:
            os.close(news_fd)
        if cancel is not None and cancel.is_set:
            raise LoadCancelledError("the load was given up")
        if isinstance(last, Built) and status == 0:
            return last
        raise BuildError(last.reason if isinstance(last, NotBuilt) else _death(status, said))


def _start(request: BuildRequest, write_fd: int, said: IO[bytes]) -> subprocess.Popen[bytes]:
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", _MODULE, str(write_fd), str(os.getpid())],
        stdin=subprocess.PIPE,
        # Native libraries write where they like.
        stdout=said,
        stderr=said,
        pass_fds=(write_fd,),
        env=_environment(os.environ, request.device),
    )
    assert child.stdin is not None  # noqa: S101 - asked for above
    try:
        child.stdin.write(request.to_json().encode() + b"\n")
        child.stdin.close()
    except BrokenPipeError:
        # It is dead already; its end of the other pipe tells.
        pass
    return child


def _environment(environ: Mapping[str, str], device: int | None) -> dict[str, str]:
    """The builder sees one GPU: the one that the number names among those that we see."""
    environment = {**environ, "ORT_DISABLE_TELEMETRY": "1"}
    if device is not None:
        visible = [name for name in environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
        environment["CUDA_VISIBLE_DEVICES"] = visible[device] if device < len(visible) else str(device)
    return environment


def _listen(news_fd: int, report: Callable[[BuildProgress], None]) -> Built | NotBuilt | None:
    """Pass progress on until the process has told its last, and give that."""
    last: Built | NotBuilt | None = None
    buffer = b""
    while True:
        data = os.read(news_fd, 65536)
        if not data:
            return last
        *lines, buffer = (buffer + data).split(b"\n")
        for line in lines:
            news = news_from_json(line.decode())
            if isinstance(news, BuildProgress):
                report(news)
            else:
                last = news


def _death(status: int, said: IO[bytes]) -> str:
    """Why a process that told nothing ended."""
    said.seek(max(0, said.seek(0, os.SEEK_END) - _SAID_BYTES))
    lines = [line.strip() for line in said.read().decode(errors="replace").splitlines() if line.strip()]
    last_words = f"; it said: {lines[-1]}" if lines else ""
    if status == -signal.SIGKILL:
        return f"the process that built it was killed; there may be too little memory for it{last_words}"
    if status < 0:
        return f"the process that built it died of {signal.Signals(-status).name}{last_words}"
    return f"the process that built it ended with status {status}{last_words}"
