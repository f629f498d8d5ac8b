"""What is known of every lane and of each model's labels and split, and what clients are told of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import msgspec

from predictd.server.config.lane import LaneConfig, LaneSignature
from predictd.server.control.publication import LabelView, LaneView, PublishModel, SettingView
from predictd.server.observe.gauges import LaneGauge, LaneState, Readiness
from predictd.server.observe.public_text import without_paths
from predictd.server.repository.traffic import Known, Traffic, default_version, labels_now


@dataclass(slots=True)
class LaneRecord:
    """One lane.

    Attributes:
        pool: Id of the pool that hosts it.
        reason: Why it failed; for operators, one line.
        progress: How far its load is, where that takes long; one line.
        load_seconds: From the start of its load until it was warm.
        fingerprint: Of the files that it was made from.
        started: When its load began, in seconds of the event loop's clock.
        loaded_by: Ids of the workers that have it.
        settings: What holds for it, and where that comes from.
        stand_in: It serves while the model's own engine builds what it runs.
    """

    config: LaneConfig
    pool: int
    instances: int
    state: LaneState = "LOADING"
    reason: str = ""
    progress: str = ""
    signature: LaneSignature | None = None
    load_seconds: float | None = None
    fingerprint: str = ""
    started: float = 0.0
    loaded_by: set[int] = field(default_factory=set)
    settings: tuple[SettingView, ...] = ()
    stand_in: bool = False

    @property
    def name(self) -> str:
        """For log lines."""
        return f"{self.config.model} version {self.config.version}"

    @property
    def remark(self) -> str:
        """What operators shall know of its state."""
        return (self.state == "LOADING" and self.progress) or self.reason


class Catalog:
    """All lanes by id, and each model's labels and split. States change here and nowhere else.

    Args:
        records: The first lanes.
        folders: Where models are: of paths below them clients are told the rest, of others the name alone.

    Attributes:
        traffic: What was set at run time, by model, also of models that are not there.
    """

    def __init__(self, records: Iterable[LaneRecord], folders: Iterable[str] = ()) -> None:
        self._folders = tuple(folders)
        self._records = {record.config.lane: record for record in records}
        self._configured: dict[str, Mapping[str, int]] = {}
        self._meant: dict[str, dict[str, int]] = {}
        self.traffic: dict[str, Traffic] = {}

    def record(self, lane: int) -> LaneRecord:
        """One lane's record."""
        return self._records[lane]

    def add(self, record: LaneRecord) -> None:
        """A new lane."""
        self._records[record.config.lane] = record

    def remove(self, lane: int) -> None:
        """A lane that is no more."""
        self._records.pop(lane, None)

    def find(self, lane: int) -> LaneRecord | None:
        """One lane's record, None when it is no more."""
        return self._records.get(lane)

    def records(self) -> list[LaneRecord]:
        """All of them."""
        return list(self._records.values())

    def in_pool(self, pool: int) -> list[LaneRecord]:
        """The lanes of a pool that have not failed."""
        return [
            record for record in self._records.values() if record.pool == pool and record.state != "FAILED"
        ]

    def hosted(self, pool: int, lane: int) -> LaneRecord | None:
        """A lane that a pool shall serve. It may have failed, or moved, while its workers load it."""
        return next((record for record in self.in_pool(pool) if record.config.lane == lane), None)

    def models(self) -> list[str]:
        """Names of all models."""
        return sorted({record.config.model for record in self._records.values()})

    @property
    def settled(self) -> bool:
        """Every lane is ready, has failed, or has another one that serves its version meanwhile."""
        served = {record.name for record in self._records.values() if record.state == "READY"}
        return all(
            record.state in ("READY", "FAILED") or record.name in served for record in self._records.values()
        )

    @property
    def failed(self) -> list[LaneRecord]:
        """The lanes that cannot be served."""
        return [record for record in self._records.values() if record.state == "FAILED"]

    @property
    def serving(self) -> bool:
        """At least one lane is ready."""
        return any(record.state == "READY" for record in self._records.values())

    def publications(self) -> list[PublishModel]:
        """What is to be told of all models."""
        return [self.publication(model) for model in self.models()]

    def publication(self, model: str) -> PublishModel:
        """What front ends are told of a model."""
        all_records = [record for record in self._records.values() if record.config.model == model]
        records = _one_a_version(all_records)
        ready = [record.config.version for record in records if record.state == "READY"]
        traffic = self.traffic.get(model, Traffic())
        labels, meant = labels_now(self.known(model), traffic, self._meant.pop(model, {}))
        if records:
            self._meant[model] = meant
        default = default_version(traffic.split, ready)
        return PublishModel(
            seq=0,
            name=model,
            default_version=default,
            versions=[_view(record, self.public(_reason(record, all_records))) for record in records],
            labels=tuple(
                LabelView(
                    name=one.name, version=one.version, set_by=one.set_by.value, next_version=one.next_version
                )
                for one in labels
            ),
            split=tuple(traffic.split.items()),
            settings=tuple(
                msgspec.structs.replace(one, value=self.public(one.value), origin=self.public(one.origin))
                for one in next((r.settings for r in records if default in (0, r.config.version)), ())
            ),
        )

    def public(self, text: str) -> str:
        """A text as clients may see it, without places on this machine."""
        return without_paths(text, self._folders)

    def known(self, model: str) -> Known:
        """A model as labels and splits see it."""
        records = _one_a_version(r for r in self._records.values() if r.config.model == model)
        states = {record.config.version: record.state for record in records}
        return Known(model, states, self._configured.get(model, {}))

    def configure_labels(self, labels: Mapping[str, Mapping[str, int]]) -> set[str]:
        """Take the labels of all models' configurations. Returns the models whose labels are others than before."""
        before, self._configured = self._configured, dict(labels)
        return {
            model
            for model in {*before, *labels}
            if dict(before.get(model, {})) != dict(labels.get(model, {}))
        }

    @property
    def configured_labels(self) -> Mapping[str, Mapping[str, int]]:
        """The labels of all models' configurations."""
        return self._configured

    def readiness(self, *, ready: bool, reasons: tuple[str, ...]) -> Readiness:
        """What /readyz says."""
        # While new content replaces old, that which serves stands for the version.
        shown: dict[tuple[str, int], LaneRecord] = {}
        for record in sorted(self._records.values(), key=_standing):
            shown[record.config.model, record.config.version] = record
        gauges = tuple(
            LaneGauge(
                record.config.model,
                record.config.version,
                record.state,
                self.public(record.remark),
                record.load_seconds,
                tuple(rules.max_queue_size for rules in record.config.queue_rules),
            )
            for record in sorted(shown.values(), key=lambda record: record.config.lane)
        )
        return Readiness(ready, gauges, reasons)


def _one_a_version(records: Iterable[LaneRecord]) -> list[LaneRecord]:
    """Highest version first. While new content replaces old the newest lane that is ready stands for the version."""
    best: dict[int, LaneRecord] = {}
    for record in sorted(records, key=_standing):
        best[record.config.version] = record
    return [best[version] for version in sorted(best, reverse=True)]


def _standing(record: LaneRecord) -> tuple[bool, bool, int]:
    return record.state == "READY", not record.stand_in, record.config.lane


def _reason(shown: LaneRecord, records: Iterable[LaneRecord]) -> str:
    """Why a version failed; of one that serves, why its newer content does not."""
    others = [record for record in records if record.config.version == shown.config.version]
    if shown.stand_in and shown.state == "READY":
        return _meanwhile(shown, others)
    failed = [
        record
        for record in others
        if record.state == "FAILED" and record.config.lane > shown.config.lane and not record.stand_in
    ]
    if shown.state != "READY" or not failed:
        return shown.remark
    newest = max(failed, key=lambda record: record.config.lane)
    return f"the old content serves on, as the new one failed: {newest.reason}"


def _meanwhile(shown: LaneRecord, others: Iterable[LaneRecord]) -> str:
    """What operators shall know of a version that a stand-in serves."""
    own = max((record for record in others if not record.stand_in), key=_standing, default=None)
    if own is None:
        return shown.remark
    if own.state == "FAILED":
        return f"{shown.config.engine} serves on, as {own.config.engine} failed: {own.reason}"
    return f"{shown.config.engine} serves meanwhile; {own.config.engine}: {own.remark or 'it loads'}"


def _view(record: LaneRecord, reason: str) -> LaneView:
    return LaneView(
        version=record.config.version,
        state=record.state,
        lane=record.config.lane,
        pool=record.pool,
        reason=reason,
        instances=record.instances,
        # What only workers need stays out: a model may have many versions, and a message a size.
        config=msgspec.structs.replace(
            record.config, inputs=(), outputs=(), served_outputs=(), warmup=None, origins={}
        ),
        signature=record.signature,
    )
