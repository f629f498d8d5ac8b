"""What `predictd tune` found best for a model on one kind of CPU.

It lies below whatever the user said, in a model's own file or to the daemon, and above the built-in defaults.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from predictd.server.config.units import format_duration

# Attributes of ModelConfig that can be tuned, in the order in which they are shown.
TUNABLE = ("engine", "instances", "threads", "spin", "allocator", "max_batch_size", "max_delay_ns")
_NANOSECONDS = "_ns"

TunedValue = str | int | bool


@dataclass(frozen=True, slots=True)
class Here:
    """The machine as results of tuning are told apart by.

    Attributes:
        cpu: `predictd.engines.hardware.cpu_fingerprint()`.
        cpus: How many CPUs can be used at once.
    """

    cpu: str
    cpus: int

    # typing.override needs Python 3.12.
    def __str__(self) -> str:  # type: ignore[explicit-override]
        return f"{self.cpu} with {self.cpus} CPU{'' if self.cpus == 1 else 's'}"


@dataclass(frozen=True, slots=True)
class Tuned:
    """A result.

    Attributes:
        here: Where it was measured.
        values: By attribute of ModelConfig; what is not in it stays at its default.
    """

    here: Here
    values: Mapping[str, TunedValue] = field(default_factory=dict)

    # typing.override needs Python 3.12.
    def __str__(self) -> str:  # type: ignore[explicit-override]
        return f"{settings_text(self.values)} (tuned on {self.here})"


def key_of(attribute: str) -> str:
    """What files call an attribute of ModelConfig."""
    return attribute.removesuffix(_NANOSECONDS)


def plain(attribute: str, value: TunedValue) -> TunedValue:
    """A value as files have it."""
    return format_duration(int(value)) if attribute.endswith(_NANOSECONDS) else value


def settings_text(values: Mapping[str, TunedValue]) -> str:
    """Settings in one line, such as `instances 2, max_delay 2ms`."""
    shown = (f"{key_of(name)} {_word(plain(name, values[name]))}" for name in TUNABLE if name in values)
    return ", ".join(shown) or "default"


def _word(value: TunedValue) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def table_of(tuned: Tuned) -> dict[str, TunedValue]:
    """A result as TOML and JSON have it; `predictd.server.config.model_file.read_tuned` reads it back."""
    values = {key_of(name): plain(name, tuned.values[name]) for name in TUNABLE if name in tuned.values}
    return {"cpu": tuned.here.cpu, "cpus": tuned.here.cpus, **values}
