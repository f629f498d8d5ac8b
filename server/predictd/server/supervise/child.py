"""A child process: its channel, and the news of its end."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from predictd.server.control.channel import Channel, ChannelClosedError
from predictd.server.control.message import Message
from predictd.server.control.messages import AnyMessage
from predictd.server.launch.child_start import child_arguments
from predictd.server.launch.sandbox.confinement import User
from predictd.server.launch.spawn import spawn
from predictd.server.observe.processes import cpu_seconds
from predictd.server.supervise.child_output import ChildOutput

OnMessage = Callable[["Child", AnyMessage, list[int]], None]
OnExit = Callable[["Child", int], None]

# Messages that wait because the child does not read: a child that lets so many pile up is as good as dead.
OUTBOX_LIMIT = 4096
_SEND_AGAIN_SECONDS = 0.002
# One that goes on and on must not keep the supervisor from all else.
_MESSAGES_AT_ONCE = 256
# More than the socket of a dead child holds.
_LAST_MESSAGES = 100_000
# The kernel cannot take the message now: buffers, or descriptors under way (unix(7)).
_LATER = (errno.EAGAIN, errno.ENOBUFS, errno.ETOOMANYREFS)

_log = logging.getLogger(__name__)


class Child:
    """One incarnation of a worker or a front end. Its id is never used again.

    A child that sends what cannot be read or handled, or that reads nothing, is killed: `on_exit` then hears of it
    as of every other death.

    Attributes:
        id: Of this incarnation.
        title: For log lines.
        pid: Of the process.
        spent_cpu_seconds: The CPU time that it took, once it has ended.

    Raises:
        OSError: The process cannot be started.
    """

    def __init__(
        self,
        child_id: int,
        title: str,
        module: str,
        arguments: Sequence[str] = (),
        *,
        environment: Mapping[str, str],
        cpus: Sequence[int],
        numa_nodes: Sequence[int] = (),
        user: User | None = None,
        on_message: OnMessage,
        on_exit: OnExit,
    ) -> None:
        self.id = child_id
        self.title = title
        self._on_message = on_message
        self._on_exit = on_exit
        self._outbox: deque[tuple[Message, list[int]]] = deque()
        self._over = False
        self.spent_cpu_seconds = 0.0
        self._loop = asyncio.get_running_loop()
        self._channel, theirs = Channel.pair()
        try:
            self._output = ChildOutput(self._loop, title)
        except OSError:
            self._channel.close()
            theirs.close()
            raise
        output = self._output
        inherited = child_arguments(theirs.fileno(), os.getpid(), output.log_fd, output.crash_fd)
        try:
            self._process = spawn(
                # The child does not read its title here; it makes room for it, as a process title replaces the
                # arguments.
                [sys.executable, "-P", "-m", module, *inherited, *arguments, title],
                environment=environment,
                cpus=cpus,
                pass_fds=[theirs.fileno(), output.log_fd, output.crash_fd],
                numa_nodes=numa_nodes,
                output=output.pipe_fd,
                user=user,
            )
            self._pidfd = _watch(self._process)
        except BaseException:
            self._channel.close()
            output.abandon()
            raise
        finally:
            theirs.close()
        self.pid = self._process.pid
        output.started(self.pid)
        self._loop.add_reader(self._channel.fileno(), self._receive)
        self._loop.add_reader(self._pidfd, self._exited)

    def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Send a message, later if the child does not read now. To a dead child nothing is sent."""
        if self._over:
            return
        if len(self._outbox) >= OUTBOX_LIMIT:
            self._condemn("does not read its messages")
            return
        # Copies: the caller may close its descriptors before a postponed message leaves.
        self._outbox.append((message, [os.dup(fd) for fd in fds]))
        if len(self._outbox) == 1:
            self._flush()

    def _flush(self) -> None:
        while self._outbox:
            message, fds = self._outbox[0]
            try:
                self._channel.send(message, fds, wait=False)
            except ChannelClosedError:
                self._discard_outbox()
                return
            except OSError as error:
                if error.errno not in _LATER:
                    raise
                self._loop.call_later(_SEND_AGAIN_SECONDS, self._flush)
                return
            self._outbox.popleft()
            _close(fds)

    def _discard_outbox(self) -> None:
        while self._outbox:
            _close(self._outbox.popleft()[1])

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal."""
        if self._process.returncode is None:
            self._process.send_signal(number)

    @property
    def stopped(self) -> bool:
        """A signal has stopped it and none has let it go on. Who only looks leaves the news where it was."""
        try:
            news = os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return False
        return news is not None

    def _receive(self, at_most: int = _MESSAGES_AT_ONCE) -> None:
        for _ in range(at_most):
            if self._over:
                return
            try:
                message, fds = self._channel.receive(wait=False)
            except BlockingIOError:
                return
            except ChannelClosedError:
                self._loop.remove_reader(self._channel.fileno())
                return
            except ValueError as error:
                self._condemn(f"sent what cannot be read: {error}")
                return
            try:
                self._on_message(self, message, fds)
            except Exception:  # noqa: BLE001 - whatever it is, what the child is owed is not known any more
                _log.exception("%s sent %s, which failed", self.title, type(message).__name__)
                self._condemn("sent a message that cannot be handled")

    def _condemn(self, why: str) -> None:
        """Have nothing more to do with it."""
        _log.error("%s %s and is killed", who(self), why)
        self._over = True
        self._loop.remove_reader(self._channel.fileno())
        self._discard_outbox()
        self.kill()

    def _exited(self) -> None:
        """Reap. What it said before its end is heard first."""
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        # The kernel shows it until the process is reaped.
        self.spent_cpu_seconds = cpu_seconds(self.pid)
        status = self._process.wait()
        self._output.ended(describe_exit(status) if status else "")
        self._receive(_LAST_MESSAGES)
        self._loop.remove_reader(self._channel.fileno())
        self._over = True
        self._discard_outbox()
        self._channel.close()
        self._on_exit(self, status)


def _watch(process: subprocess.Popen[bytes]) -> int:
    """A descriptor that is readable once the process has ended."""
    try:
        return os.pidfd_open(process.pid)
    except OSError:
        process.kill()
        process.wait()
        raise


def who(child: Child) -> str:
    """A child for log lines; each incarnation has its own."""
    return f"{child.title} (pid {child.pid})"


def describe_exit(status: int) -> str:
    """How a process ended, in words."""
    if status < 0:
        try:
            return f"killed by {signal.Signals(-status).name}"
        except ValueError:
            return f"killed by signal {-status}"
    return f"exit status {status}"


def _close(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)
