"""`predictd top`: the status page in a terminal."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import ssl
import sys
import time
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, Self

import click

from predictd.server.cli.trust import Trust, trust_options
from predictd.server.config.units import parse_address

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from predictd.server.config.units import Address

_PERIOD_SECONDS: Final = 1.0
_ANSWER_SECONDS: Final = 5.0
_DOCUMENT_BYTES_MAX: Final = 64 << 20
_PIPED_COLUMNS: Final = 120
_PATH: Final = "/status.json"


class _NoStatusError(Exception):
    """Why there is no document, one line."""


def _address(_ctx: click.Context, _parameter: click.Parameter, text: str) -> Address:
    try:
        return parse_address(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.command
@click.option(
    "--http",
    "target",
    metavar="HOST:PORT",
    envvar="PREDICTD_HTTP",
    default="127.0.0.1:8002",
    show_default=True,
    show_envvar=True,
    callback=_address,
    help="Where the daemon answers HTTP.",
)
@trust_options
@click.option("--once", is_flag=True, help="Print one frame; so does a command whose output is no terminal.")
def top(target: Address, *, trust: Trust, once: bool) -> None:
    """Watch a running daemon: models, latencies, processes, recent errors.

    q or Ctrl-C ends it.
    """
    trust.check_token(str(target))
    # Only now: wrong usage must not wait for it.
    from rich.console import Console

    from predictd.server.cli.top_frame import frame

    try:
        status = _fetch(target, trust)
    except _NoStatusError as error:
        raise click.ClickException(str(error)) from error
    if hasattr(sys.stdout, "reconfigure"):
        # Where the terminal knows no such character another one is as good.
        sys.stdout.reconfigure(errors="replace")
    console = Console(highlight=False)
    if once or not console.is_terminal:
        if not console.is_terminal:
            console.width = max(console.width, _PIPED_COLUMNS)
        console.print(frame(status, target=str(target), columns=console.width))
        return
    # Ctrl-C is how most people leave.
    with suppress(KeyboardInterrupt):
        _watch(console, target, trust, status)


def _watch(console: Console, target: Address, trust: Trust, status: dict[str, Any]) -> None:
    """Draw until somebody has enough. The terminal is then as it was, whatever ended it."""
    from rich.live import Live

    from predictd.server.cli.top_frame import frame

    answered, note = time.monotonic(), ""
    with (
        _ending_on_signals(),
        _Keys() as keys,
        Live(console=console, screen=True, auto_refresh=False) as live,
    ):
        while True:
            columns, lines = _size(console)
            shown = frame(status, target=str(target), note=note, columns=columns, lines=lines)
            live.update(shown, refresh=True)
            if "q" in keys.pressed(_PERIOD_SECONDS).lower():
                return
            try:
                status, answered, note = _fetch(target, trust), time.monotonic(), ""
            except _NoStatusError:
                note = f"no answer for {time.monotonic() - answered:.0f} s"


def _size(console: Console) -> tuple[int, int]:
    """Columns and lines of the terminal as it is now, whatever COLUMNS said when it was opened."""
    size = os.get_terminal_size(sys.stdout.fileno())
    if size.columns and size.lines:
        console.width, console.height = size
    return console.width, console.height


def _fetch(target: Address, trust: Trust) -> dict[str, Any]:
    """Ask the daemon. No proxy is asked: what is watched is near."""
    headers = {} if trust.token is None else {"Authorization": f"Bearer {trust.token}"}
    try:
        with closing(_connect(target, trust)) as connection:
            connection.request("GET", _PATH, headers=headers)
            answer = connection.getresponse()
            body = answer.read(_DOCUMENT_BYTES_MAX)
        if answer.status in (http.HTTPStatus.UNAUTHORIZED, http.HTTPStatus.FORBIDDEN):
            why = body.decode("utf-8", "replace").strip()
            raise _NoStatusError(f"the daemon at {target} refuses: {why} (--token-file)")
        status = json.loads(body) if answer.status == http.HTTPStatus.OK else None
    except http.client.BadStatusLine as error:
        how = "with" if trust.tls else "without"
        raise _NoStatusError(f"what answers at {target} speaks no HTTP/1.1 {how} TLS") from error
    except (OSError, http.client.HTTPException) as error:
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise _NoStatusError(f"no daemon answers at {target}: {why.lower()}") from error
    except ValueError as error:
        raise _NoStatusError(f"what answers at {target} is no predictd: {_PATH} is no JSON") from error
    if not isinstance(status, dict) or "models" not in status:
        raise _NoStatusError(f"what answers at {target} is no predictd that has {_PATH}")
    return status


def _connect(target: Address, trust: Trust) -> http.client.HTTPConnection:
    context = trust.context()
    if context is None:
        return http.client.HTTPConnection(target.host, target.port, timeout=_ANSWER_SECONDS)
    if trust.server_name is None:
        return http.client.HTTPSConnection(target.host, target.port, timeout=_ANSWER_SECONDS, context=context)
    return _NamedConnection(target, trust.server_name, context)


class _NamedConnection(http.client.HTTPConnection):
    """A connection to a host whose certificate has another name."""

    def __init__(self, target: Address, name: str, context: ssl.SSLContext) -> None:
        super().__init__(target.host, target.port, timeout=_ANSWER_SECONDS)
        self._name = name
        self._tls = context

    # typing.override needs Python 3.12.
    def connect(self) -> None:  # type: ignore[explicit-override]
        super().connect()
        self.sock = self._tls.wrap_socket(self.sock, server_hostname=self._name)


@contextmanager
def _ending_on_signals() -> Iterator[None]:
    """Turn signals that would end the process at once into an exit that leaves a clean terminal."""

    def leave(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Keys:
    """Keys as they are pressed, if there is a terminal to press them on, and changes of its size."""

    def __enter__(self) -> Self:
        import termios
        import tty

        self._terminal = sys.stdin.fileno() if sys.stdin.isatty() else None
        if self._terminal is not None:
            self._before = termios.tcgetattr(self._terminal)
            tty.setcbreak(self._terminal)
            mode = termios.tcgetattr(self._terminal)
            # A stopped process would leave its screen to the shell.
            mode[6][termios.VSUSP] = b"\0"
            termios.tcsetattr(self._terminal, termios.TCSANOW, mode)
        self._resized, self._waker = socket.socketpair()
        self._resized.setblocking(False)
        self._waker.setblocking(False)
        self._handler = signal.signal(signal.SIGWINCH, lambda _number, _frame: None)
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        return self

    def __exit__(self, *_: object) -> None:
        import termios

        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGWINCH, self._handler)
        self._resized.close()
        self._waker.close()
        if self._terminal is not None:
            termios.tcsetattr(self._terminal, termios.TCSAFLUSH, self._before)

    def pressed(self, seconds: float) -> str:
        """Wait for a key, a new size or the end of the time; returns the keys."""
        import os
        import select

        waited = [self._resized.fileno(), *(() if self._terminal is None else (self._terminal,))]
        able, _, _ = select.select(waited, (), (), seconds)
        with suppress(BlockingIOError):
            self._resized.recv(4096)
        if self._terminal is None or self._terminal not in able:
            return ""
        data = os.read(self._terminal, 1024)
        if not data:
            # The terminal is gone and would be readable for ever.
            self._terminal = None
        return data.decode("utf-8", "replace")
