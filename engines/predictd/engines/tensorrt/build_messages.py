"""What the process that builds is told, and what it tells: JSON, a line each.

It is a process of its own because a build may take gigabytes and crash with the library; whoever asked for it lives
on, and hears why.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

from predictd.engines.tensorrt.build_options import BuildOptions
from predictd.engines.tensorrt.plan_file import PlanFacts
from predictd.engines.tensorrt.progress import BuildProgress


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """What to build.

    Attributes:
        model: The ONNX file.
        model_digest: Of its content.
        plan: Where to write the plan, with its facts beside it.
        options: Of the build.
        declared: Shapes that the model's configuration gives, by input.
        device: Number of the GPU to build on; None to build for GPUs that need not be there.
        timing_cache: What earlier builds measured; empty for none.
        new_timing_cache: Where to write what this one measured besides; empty to keep nothing.
    """

    model: str
    model_digest: str
    plan: str
    options: BuildOptions
    declared: dict[str, tuple[int, ...]]
    device: int | None
    timing_cache: str = ""
    new_timing_cache: str = ""

    def to_json(self) -> str:
        """One line."""
        said = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return json.dumps(said | {"options": self.options.to_json()})

    @staticmethod
    def from_json(text: str) -> BuildRequest:
        """What `to_json` wrote."""
        said: dict[str, Any] = json.loads(text)
        declared = {name: tuple(shape) for name, shape in said["declared"].items()}
        return BuildRequest(
            **said | {"options": BuildOptions.from_json(said["options"]), "declared": declared}
        )


@dataclass(frozen=True, slots=True)
class Built:
    """The plan is written.

    Attributes:
        size_bytes: Of the plan.
        peak_bytes: Memory that the process had at most.
        warnings: That TensorRT gave, a line each.
    """

    facts: PlanFacts
    size_bytes: int
    peak_bytes: int
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NotBuilt:
    """There is no plan."""

    reason: str


BuildNews = BuildProgress | Built | NotBuilt


def news_to_json(news: BuildNews) -> str:
    """One line."""
    return json.dumps({type(news).__name__: dataclasses.asdict(news)})


def news_from_json(text: str) -> BuildNews:
    """What `news_to_json` wrote."""
    ((kind, content),) = json.loads(text).items()
    match kind:
        case "BuildProgress":
            return BuildProgress(**content)
        case "Built":
            facts = PlanFacts(**content["facts"] | {"targets": tuple(content["facts"]["targets"])})
            return Built(facts, content["size_bytes"], content["peak_bytes"], tuple(content["warnings"]))
        case _:
            return NotBuilt(content["reason"])
