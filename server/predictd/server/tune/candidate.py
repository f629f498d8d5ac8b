"""A set of settings that is tried out against the built-in defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from predictd.server.config.tuned import TUNABLE, TunedValue, settings_text

# Some settings, by attribute of ModelConfig.
Move = Mapping[str, TunedValue]


@dataclass(frozen=True, slots=True)
class Candidate:
    """Settings over the defaults.

    Attributes:
        settings: Attributes of ModelConfig with their values, in the order of TUNABLE; without any it is the default.
    """

    settings: tuple[tuple[str, TunedValue], ...] = ()

    @classmethod
    def of(cls, settings: Move) -> Candidate:
        """A candidate with these settings."""
        return cls(tuple((name, settings[name]) for name in TUNABLE if name in settings))

    @property
    def values(self) -> dict[str, TunedValue]:
        """The settings by name."""
        return dict(self.settings)

    def after(self, move: Move) -> Candidate:
        """The same with some settings changed."""
        return Candidate.of({**self.values, **move})

    # typing.override needs Python 3.12.
    def __str__(self) -> str:  # type: ignore[explicit-override]
        return settings_text(self.values)


DEFAULT = Candidate()
