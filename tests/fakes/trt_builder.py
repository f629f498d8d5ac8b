"""A TensorRT whose builder only remembers what it was asked: as much of the module as building a plan touches.

What differs between versions is what a version lacks, so the fake is told what to lack.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from predictd.engines.tensorrt.bindings import Bindings

PLAN = b"ftrt" + bytes(20) + bytes((10, 9, 0, 34)) + bytes(100)


class Layer:
    """A layer of a network, with one output."""

    num_outputs = 1

    def __init__(self, kind: str, dtype: str) -> None:
        self.type = kind
        self._dtype = dtype

    def get_output(self, _index: int) -> Any:
        """Its output."""
        return SimpleNamespace(dtype=self._dtype)


class Builder:
    """TensorRT's builder, and the network and configuration that it makes."""

    def __init__(self, fake: FakeBuilderModule) -> None:
        self._fake = fake

    def create_network(self, flags: int) -> Any:
        """An empty network."""
        self._fake.network_flags.append(flags)
        layers = [Layer(*each) for each in self._fake.layers]
        tensors = [
            SimpleNamespace(name=name, shape=shape, is_shape_tensor=name in self._fake.shape_tensors)
            for name, shape in self._fake.inputs
        ]
        return SimpleNamespace(
            num_inputs=len(tensors),
            get_input=tensors.__getitem__,
            num_layers=len(layers),
            get_layer=layers.__getitem__,
        )

    def create_builder_config(self) -> Any:
        """An empty configuration."""
        return Config(self._fake)

    def create_optimization_profile(self) -> Any:
        """An empty profile."""
        shapes: dict[str, Any] = {}
        return SimpleNamespace(
            shapes=shapes, set_shape=lambda name, *sizes: shapes.__setitem__(name, tuple(sizes))
        )

    def build_serialized_network(self, _network: object, config: Config) -> Any:
        """A plan, or None with a reason in the log."""
        self._fake.configs.append(config)
        if self._fake.failure:
            self._fake.logger.log(SimpleNamespace(name="ERROR"), self._fake.failure)
            return None
        monitor = getattr(config, "progress_monitor", None)
        if monitor is not None:
            monitor.phase_start("Building engine", None, 2)
            monitor.step_complete("Building engine", 0)
            monitor.phase_finish("Building engine")
        return PLAN


class Config:
    """TensorRT's configuration of a build."""

    def __init__(self, fake: FakeBuilderModule) -> None:
        self.flags = {"TF32"} & set(vars(fake.BuilderFlag))
        self.limits: dict[str, int] = {}
        self.profiles: list[Any] = []
        self.timings = b""
        self._fake = fake

    def set_flag(self, flag: str) -> None:
        """Set a flag."""
        self.flags.add(flag)

    def clear_flag(self, flag: str) -> None:
        """Clear a flag."""
        self.flags.discard(flag)

    def set_memory_pool_limit(self, pool: str, size_bytes: int) -> None:
        """Limit a pool."""
        self.limits[pool] = size_bytes

    def add_optimization_profile(self, profile: Any) -> int:
        """The index of a profile."""
        self.profiles.append(dict(profile.shapes))
        return len(self.profiles) - 1

    def create_timing_cache(self, content: bytes) -> Any:
        """A cache of this content; None of what it cannot read."""
        return None if content == b"damaged" else SimpleNamespace(content=content)

    def set_timing_cache(self, cache: Any, *, ignore_mismatch: bool) -> bool:
        """Use a cache."""
        assert not ignore_mismatch
        self.timings = cache.content
        return True

    def get_timing_cache(self) -> Any:
        """The cache, with what was measured."""
        return SimpleNamespace(serialize=lambda: self.timings + b"measured")


class FakeBuilderModule:
    """What `import tensorrt` would give.

    Attributes:
        layers: Kind and dtype of each layer of the model.
        inputs: Name and shape of each input.
        failure: What a build fails with.
        configs: That plans were built with.
    """

    __version__ = "10.9.0.34"
    ILogger = type("ILogger", (), {})
    Runtime = type("Runtime", (), {})
    OnnxParser = staticmethod(
        lambda _network, _logger: SimpleNamespace(parse_from_file=lambda _path: True, num_errors=0)
    )
    LayerType = SimpleNamespace(QUANTIZE="quantize")
    DataType = SimpleNamespace(HALF="half", BF16="bf16", FLOAT="float")
    MemoryPoolType = SimpleNamespace(WORKSPACE="workspace")
    HardwareCompatibilityLevel = SimpleNamespace(AMPERE_PLUS="ampere_plus")

    def __init__(
        self,
        builder_flags: Sequence[str],
        network_flags: Sequence[str],
        *,
        layers: Sequence[tuple[str, str]] = (("convolution", "float"),),
        inputs: Sequence[tuple[str, tuple[int, ...]]] = (("x", (-1, 4)),),
        shape_tensors: Sequence[str] = (),
        monitor: bool = True,
        failure: str = "",
    ) -> None:
        self.BuilderFlag = SimpleNamespace(**{name: name for name in builder_flags})
        self.NetworkDefinitionCreationFlag = SimpleNamespace(
            **{name: index for index, name in enumerate(network_flags)}
        )
        self.layers, self.inputs, self.shape_tensors, self.failure = layers, inputs, shape_tensors, failure
        self.network_flags: list[int] = []
        self.configs: list[Config] = []
        self.logger: Any = None
        if monitor:
            self.IProgressMonitor = type("IProgressMonitor", (), {})

    def Builder(self, logger: Any) -> Builder:  # noqa: N802 - as TensorRT calls it
        """A builder."""
        self.logger = logger
        return Builder(self)

    @property
    def bindings(self) -> Bindings:
        """As `load_bindings` would give them."""
        return Bindings(self, "tensorrt", self.__version__)


def tensorrt_8_6(**given: Any) -> FakeBuilderModule:
    """No strong types, no monitor."""
    return FakeBuilderModule(
        ("TF32", "FP16", "INT8", "SPARSE_WEIGHTS", "VERSION_COMPATIBLE"),
        ("EXPLICIT_BATCH",),
        monitor=False,
        **given,
    )


def tensorrt_10(**given: Any) -> FakeBuilderModule:
    """Types as one likes."""
    return FakeBuilderModule(
        ("TF32", "FP16", "BF16", "INT8", "SPARSE_WEIGHTS", "VERSION_COMPATIBLE"),
        ("EXPLICIT_BATCH", "STRONGLY_TYPED"),
        **given,
    )


def tensorrt_11(**given: Any) -> FakeBuilderModule:
    """Strong types only."""
    return FakeBuilderModule(("TF32", "SPARSE_WEIGHTS", "VERSION_COMPATIBLE"), ("STRONGLY_TYPED",), **given)
