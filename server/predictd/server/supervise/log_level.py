"""The level of the log while the daemon runs: what it is, and telling every child when it changes."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol

from predictd.server.control.commands import CommandDone, SetLogLevel
from predictd.server.control.message import Message
from predictd.server.control.messages import LogLevel
from predictd.server.observe.logs import LEVELS, set_level

_log = logging.getLogger(__name__)


class Told(Protocol):
    """A child, as far as this is concerned."""

    def send(self, message: Message) -> None: ...


class LogLevelControl:
    """Has one level in all processes.

    Args:
        configured: The level of the settings, which new children have by themselves.
        children: Who is told of a change.

    Attributes:
        level: What it is now.
    """

    def __init__(self, configured: str, children: Callable[[], Iterable[Told]]) -> None:
        self._configured = configured
        self._children = children
        self.level = configured

    def toggle(self) -> None:
        """SIGUSR1: from any level to debug, and from debug back to the configured one, or to info if that is debug."""
        normal = "info" if self._configured == "debug" else self._configured
        self.change(normal if self.level == "debug" else "debug", "SIGUSR1")

    def change(self, level: str, who: str) -> None:
        """Change the level.

        Args:
            level: One of LEVELS.
            who: Asked for it, for the log.
        """
        old, self.level = self.level, level
        # The more talkative level has the news.
        if LEVELS.index(level) < LEVELS.index(old):
            set_level(level)
        _log.info("%s changes the log level from %s to %s", who, old, level)
        set_level(level)
        for child in self._children():
            child.send(LogLevel(level=level))

    async def answer(
        self, asker: Told, command: SetLogLevel, all_answered: Callable[[], Awaitable[object]]
    ) -> None:
        """Do as a client says, and answer once every child that answers at all has heard of it."""
        self.change(command.level, "a client")
        await all_answered()
        asker.send(CommandDone(seq=command.seq))

    def greet(self, child: Told) -> None:
        """Tell a new child, which has only heard of the settings."""
        if self.level != self._configured:
            child.send(LogLevel(level=self.level))
