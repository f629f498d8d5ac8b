"""Which lane answers a request: the models as the supervisor published them."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from predictd.engines.api import DType
from predictd.server.config.lane import LaneConfig, LaneSignature, WireTensor
from predictd.server.control.publication import LaneView, PublishModel
from predictd.server.errors import ModelUnavailableError, UnknownModelError
from predictd.server.frontend.admission import LaneInputs
from predictd.server.frontend.answer_limit import NO_LIMIT, AnswerLimit, ResponseLimit
from predictd.server.frontend.inference import LabelInfo, ModelInfo, SettingInfo, TensorInfo, VersionInfo
from predictd.server.frontend.labels import Names, names_by_digest
from predictd.server.frontend.waiting import LaneQueues


class LoadingError(ModelUnavailableError):
    """What is asked for is not ready yet."""


@dataclass(slots=True)
class Lane:
    """A version that serves, with everything a request needs to be checked and sent.

    Attributes:
        inputs: Checks requests and remembers the layouts of shapes it has seen.
        queues: Where requests wait.
        answer_limit: How large an answer may be.
        selections: Output indices of the combinations of names that were asked for.
    """

    id: int
    pool: int
    model: str
    version: int
    config: LaneConfig
    signature: LaneSignature
    inputs: LaneInputs
    queues: LaneQueues
    answer_limit: AnswerLimit
    output_names: tuple[str, ...]
    selections: dict[tuple[str, ...], tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Model:
    """A model as published.

    Attributes:
        shares: The versions of the split that are ready, each with the sum of the percentages up to its own.
    """

    info: ModelInfo
    lanes: dict[int, Lane]
    labels: dict[str, int]
    names: dict[str, Names]
    shares: tuple[tuple[int, Lane], ...]


class Routes:
    """The routing table. A published model replaces what was known of it in one step.

    Args:
        shape_secret: Keeps clients from guessing shape keys.
        draw: A number from 0 to below 1, drawn for each request to a model whose default is split.
        response_limit: Of one answer.
    """

    def __init__(
        self,
        shape_secret: bytes,
        draw: Callable[[], float] = random.random,
        response_limit: ResponseLimit = NO_LIMIT,
    ) -> None:
        self._shape_secret = shape_secret
        self._response_limit = response_limit
        self._draw = draw
        self._models: dict[str, _Model] = {}
        self._infos: tuple[ModelInfo, ...] = ()
        self._news = asyncio.Event()

    def publish(self, model: PublishModel) -> None:
        """Take in a model; without versions it is forgotten."""
        if not model.versions:
            self._models.pop(model.name, None)
        else:
            known = self._models.get(model.name)
            self._models[model.name] = self._build(model, known)
        self._infos = tuple(self._models[name].info for name in sorted(self._models))
        # Wakes those who wait now, and them alone.
        self._news.set()
        self._news.clear()

    def lanes_of_pools(self) -> Mapping[int, int]:
        """How many lanes each pool has."""
        return Counter(lane.pool for model in self._models.values() for lane in model.lanes.values())

    async def published(self) -> None:
        """Wait until a model is published."""
        await self._news.wait()

    def lane(self, name: str, version: int | None, label: str | None) -> Lane:
        """The lane for a request.

        Raises:
            UnknownModelError: No such model, version or label.
            LoadingError: It exists and is not ready yet.
            ModelUnavailableError: It exists and does not serve.
        """
        model = self._models.get(name)
        if model is None:
            raise UnknownModelError(f"model '{name}' is not known")
        if model.shares and version is None and label is None:
            return self._drawn(model.shares)
        return self._chosen(model, version, label)

    def plain(self, name: str) -> Mapping[int, Lane]:
        """The lanes of a model by version, and by 0 the one of requests that name none, unless that is drawn."""
        model = self._models.get(name)
        if model is None:
            return {}
        default = None if model.shares else model.lanes.get(model.info.default_version)
        return {**model.lanes, 0: default} if default is not None else model.lanes

    def candidates(self, name: str) -> Sequence[Lane]:
        """The lanes that may serve a request to a model, or to any if it is not named."""
        models = (self._models.get(name),) if name else self._models.values()
        return [lane for model in models if model is not None for lane in model.lanes.values()]

    def model(self, name: str) -> ModelInfo:
        """A model's metadata. Raises UnknownModelError."""
        model = self._models.get(name)
        if model is None:
            raise UnknownModelError(f"model '{name}' is not known")
        return model.info

    def version(self, name: str, version: int | None, label: str | None) -> VersionInfo:
        """A serving version's metadata; of the default the same one each time. Raises as `lane` does."""
        info = self.model(name)
        lane = self._chosen(self._models[name], version, label)
        return next(v for v in info.versions if v.version == lane.version)

    def models(self) -> Sequence[ModelInfo]:
        """All models by name."""
        return self._infos

    def _drawn(self, shares: tuple[tuple[int, Lane], ...]) -> Lane:
        *others, (total, last) = shares
        point = self._draw() * total
        return next((lane for below, lane in others if point < below), last)

    def _chosen(self, model: _Model, version: int | None, label: str | None) -> Lane:
        number = self._number(model, version, label)
        lane = model.lanes.get(number)
        if lane is None:
            raise _not_serving(model.info, number)
        return lane

    @staticmethod
    def _number(model: _Model, version: int | None, label: str | None) -> int:
        if label is not None:
            if label not in model.labels:
                known = ", ".join(sorted(model.labels)) or "none"
                raise UnknownModelError(f"model '{model.info.name}' has no label '{label}' (labels: {known})")
            version = model.labels[label]
            if all(v.version != version for v in model.info.versions):
                raise UnknownModelError(
                    f"label '{label}' of model '{model.info.name}' means version {version}, which is not there"
                )
        if version is None:
            return model.info.default_version
        if all(v.version != version for v in model.info.versions):
            known = ", ".join(str(v.version) for v in model.info.versions)
            raise UnknownModelError(f"model '{model.info.name}' has no version {version} (versions: {known})")
        return version

    def _build(self, model: PublishModel, known: _Model | None) -> _Model:
        lanes = {}
        labels = {label.name: label.version for label in model.labels}
        signatures = [view.signature for view in model.versions if view.signature]
        outputs = [output for signature in signatures for output in signature.outputs]
        names = names_by_digest(outputs, known.names if known else {})
        for view in model.versions:
            if view.state == "READY" and view.config is not None and view.signature is not None:
                old = known.lanes.get(view.version) if known else None
                same = old is not None and (old.id, old.pool) == (view.lane, view.pool)
                lanes[view.version] = old if same and old else self._lane(view, view.config, view.signature)
        info = ModelInfo(
            name=model.name,
            versions=tuple(_version_info(view, names, labels) for view in model.versions),
            default_version=model.default_version,
            labels=tuple(
                LabelInfo(label.name, label.version, label.set_by, label.next_version)
                for label in model.labels
            ),
            split=model.split,
            settings=tuple(SettingInfo(one.name, one.value, one.origin) for one in model.settings),
        )
        return _Model(info, lanes, labels, names, _shares(model.split, lanes))

    def _lane(self, view: LaneView, config: LaneConfig, signature: LaneSignature) -> Lane:
        return Lane(
            id=view.lane,
            pool=view.pool,
            model=config.model,
            version=config.version,
            config=config,
            signature=signature,
            inputs=LaneInputs(config, signature, self._shape_secret),
            queues=LaneQueues(config),
            answer_limit=AnswerLimit.of(config.model, signature, self._response_limit),
            output_names=tuple(output.name for output in signature.outputs),
        )


def _not_serving(info: ModelInfo, number: int) -> ModelUnavailableError:
    # No version is the default one while none is ready: one that loads will be.
    version = next(
        (v for v in info.versions if v.version == number or (not number and v.state == "LOADING")),
        info.versions[0],
    )
    state = {"LOADING": "is still loading", "FAILED": "failed to load", "UNLOADING": "is being unloaded"}
    what = f"version {version.version} of model '{info.name}' {state.get(version.state, 'is not ready')}"
    kind = LoadingError if version.state == "LOADING" else ModelUnavailableError
    return kind(f"{what}; the daemon's log and 'predictd models' say why" if version.reason else what)


def _tensors(tensors: Sequence[WireTensor], names: Mapping[str, Names]) -> tuple[TensorInfo, ...]:
    return tuple(
        TensorInfo(t.name, DType(t.dtype), t.shape, t.optional, names.get(t.labels_digest, ()))
        for t in tensors
    )


def _shares(split: Sequence[tuple[int, int]], lanes: Mapping[int, Lane]) -> tuple[tuple[int, Lane], ...]:
    ready = [(percent, lanes[version]) for version, percent in split if version in lanes]
    sums = itertools.accumulate(percent for percent, _ in ready)
    return tuple((below, lane) for below, (_, lane) in zip(sums, ready, strict=True))


def _version_info(view: LaneView, names: Mapping[str, Names], labels: Mapping[str, int]) -> VersionInfo:
    config, signature = view.config, view.signature
    return VersionInfo(
        version=view.version,
        state=view.state,
        reason=view.reason,
        engine=signature.engine if signature else "",
        inputs=_tensors(signature.inputs, names) if signature else (),
        outputs=_tensors(signature.outputs, names) if signature else (),
        batches=signature.batches if signature else False,
        max_batch_size=config.max_batch_size if config and signature and signature.batches else 0,
        max_delay_ns=config.max_delay_ns if config else 0,
        preferred_batch_sizes=config.preferred_batch_sizes if config else (),
        priority_levels=config.priority_levels if config else 0,
        default_priority=config.default_priority if config else 0,
        queues=config.queue_rules if config else (),
        instances=view.instances,
        labels=tuple(sorted(label for label, version in labels.items() if version == view.version)),
        tuned=config.tuned if config else "",
    )
