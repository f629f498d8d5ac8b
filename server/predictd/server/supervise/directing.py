"""Labels and splits that are set at run time: checked, kept, and told to every front end before it is answered."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from predictd.server.control.commands import LabelsDone, SetLabel, SetSplit
from predictd.server.control.outcomes import failure
from predictd.server.control.publication import PublishModel
from predictd.server.errors import ModelUnavailableError
from predictd.server.repository.traffic import (
    Traffic,
    TrafficError,
    remove_label,
    replace_labels,
    set_label,
    set_split,
    without_effect,
)
from predictd.server.supervise.catalog import Catalog
from predictd.server.supervise.child import Child
from predictd.server.supervise.state_file import StateError, StateFile

# A front end that is busy takes a publication in late; one that hangs must not keep others waiting.
TAKEN_IN_SECONDS = 5.0

Publish = Callable[[PublishModel, Callable[[], None]], None]

_log = logging.getLogger(__name__)


class Director:
    """Changes what the catalog says of labels and splits.

    Args:
        catalog: Says what is known of a model, and holds the result.
        state: Where settings are kept, and were by an earlier daemon; None if they end with this one.
        publish: Tells all front ends of a model, and then calls back.
        tfs_unready_labels: Lists of models may give labels that are not in use to versions that are not ready.
    """

    def __init__(
        self,
        catalog: Catalog,
        state: StateFile | None,
        publish: Publish,
        *,
        tfs_unready_labels: bool = False,
    ) -> None:
        if state is not None:
            catalog.traffic = dict(state.traffic)
        self._catalog = catalog
        self._state = state
        self._publish = publish
        self._tfs_unready_labels = tfs_unready_labels
        self._one_at_a_time = asyncio.Lock()
        self._complained: set[str] = set()
        self._warned = False

    async def change(self, child: Child, message: SetLabel | SetSplit) -> None:
        """Do what a front end was asked for, and answer it."""
        try:
            async with self._one_at_a_time:
                taken_in = await self._change(message)
            await asyncio.wait({taken_in}, timeout=TAKEN_IN_SECONDS)
        except TrafficError as error:
            child.send(LabelsDone(seq=message.seq, status=error.status, message=str(error)))
        except StateError as error:
            _log.error("a change of model %s is refused: %s", message.model, error)
            child.send(
                LabelsDone(seq=message.seq, status="UNAVAILABLE", message="the change cannot be kept on disk")
            )
        else:
            late = "" if taken_in.done() else "it is set, but a front end has not confirmed it yet"
            child.send(LabelsDone(seq=message.seq, status="UNAVAILABLE" if late else "", message=late))

    async def replace_labels(self, labels: Mapping[str, Mapping[str, int]]) -> None:
        """Make labels, by model, all that each has of those set at run time; of all the models or of none.

        Raises:
            RequestError: They cannot be set so, or not kept.
        """
        try:
            async with self._one_at_a_time:
                taken_in = await self._apply(self._replaced(labels))
        except TrafficError as error:
            raise failure(error.status, str(error)) from error
        except StateError as error:
            _log.error("labels are refused: %s", error)
            raise ModelUnavailableError("labels cannot be kept on disk") from error
        if taken_in:
            await asyncio.wait(taken_in, timeout=TAKEN_IN_SECONDS)

    def _replaced(self, labels: Mapping[str, Mapping[str, int]]) -> dict[str, Traffic]:
        changed = {}
        for name, wanted in labels.items():
            before = self._catalog.traffic.get(name, Traffic())
            known = self._catalog.known(name)
            after = replace_labels(known, before, wanted, allow_unready=self._tfs_unready_labels)
            if after != before:
                changed[name] = after
        return changed

    async def _change(self, message: SetLabel | SetSplit) -> asyncio.Future[None]:
        """Check, keep and publish. The future is done once every front end took it in."""
        (taken_in,) = await self._apply({message.model: self._changed(message)})
        _log.info("%s", _line(message))
        return taken_in

    async def _apply(self, changed: Mapping[str, Traffic]) -> list[asyncio.Future[None]]:
        """Keep and publish what was set for some models. A future for each is done once every front end took it in."""
        if not changed:
            return []
        everything = {
            name: traffic
            for name, traffic in {**self._catalog.traffic, **changed}.items()
            if traffic.versions
        }
        if self._state is not None:
            # Written before it takes effect: what was answered holds after any crash.
            await asyncio.to_thread(self._state.write, everything)
        elif not self._warned:
            self._warned = True
            _log.warning("what is set at run time ends with the daemon: --state-dir would keep it")
        self._catalog.traffic = everything
        return [self._published(name) for name in changed]

    def _published(self, name: str) -> asyncio.Future[None]:
        taken_in: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._publish(self._catalog.publication(name), lambda: taken_in.set_result(None))
        return taken_in

    def _changed(self, message: SetLabel | SetSplit) -> Traffic:
        known = self._catalog.known(message.model)
        traffic = self._catalog.traffic.get(message.model, Traffic())
        match message:
            case SetLabel(label=label, version=None):
                return remove_label(known, traffic, label)
            case SetLabel(label=label, version=int(version), allow_unready=allow_unready):
                return set_label(known, traffic, label, version, allow_unready=allow_unready)
            case SetSplit(split=split, allow_unready=allow_unready):
                return set_split(known, traffic, split, allow_unready=allow_unready)
        raise TypeError(f"{message!r} is no change of labels. This is a bug.")

    def complain(self, versions: Mapping[str, set[int]]) -> None:
        """Say once of each setting that it names a model or a version that is not there.

        Args:
            versions: Those that are to be served, by model.
        """
        lines = {
            line
            for name, traffic in self._catalog.traffic.items()
            for line in without_effect(name, traffic, versions.get(name, set()))
        }
        for line in sorted(lines - self._complained):
            _log.warning("%s", line)
        self._complained = lines


def _line(message: SetLabel | SetSplit) -> str:
    if isinstance(message, SetSplit):
        shares = " ".join(f"{version}={percent}%" for version, percent in message.split)
        return f"the split of model {message.model} is {shares or 'cleared'}"
    what = "is removed" if message.version is None else f"is version {message.version}"
    return f"label {message.label} of model {message.model} {what}"
