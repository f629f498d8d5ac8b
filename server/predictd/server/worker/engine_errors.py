"""What clients are told of an engine's errors, and what the log says besides."""

from __future__ import annotations

import logging
import time

from predictd.server.config.lane import LaneConfig
from predictd.server.observe.error_ids import ErrorIds
from predictd.server.observe.public_text import of_engine
from predictd.server.transport.records import Status

_log = logging.getLogger(__name__)


class EngineErrors:
    """Tells errors of engines. What is withheld from clients stands in the log, by an id that they are told."""

    def __init__(self) -> None:
        self._ids = ErrorIds()

    def refused(self, config: LaneConfig, error: Exception) -> str:
        """Why a model cannot run on its inputs, without names of its nodes and places on this machine."""
        text, public = str(error), of_engine(str(error))
        if public == text:
            return text
        return f"{public} ({self._logged(config, Status.INVALID_INPUT, text)})"

    def failed(self, config: LaneConfig, error: Exception, *, expected: bool) -> str:
        """That an engine failed. Its words are for who runs it: a client can do nothing about it.

        Args:
            config: Of the lane.
            error: What happened.
            expected: The engine said so itself; of anything else the log shows where it came from.
        """
        told = self._logged(config, Status.ENGINE_FAILED, str(error), None if expected else error)
        return f"the engine failed ({told})"

    def _logged(self, config: LaneConfig, status: Status, text: str, error: Exception | None = None) -> str:
        made = self._ids.id_of((config.lane, status, type(error)), time.monotonic())
        if made.new:
            extra = {**config.identity, "error_id": made.id}
            if made.repeated:
                extra["repeated"] = made.repeated
            what = "error %s: model %s cannot run on what a client sent: %s"
            if status is Status.ENGINE_FAILED:
                what = "error %s: the engine failed on model %s: %s"
            level = logging.ERROR if status is Status.ENGINE_FAILED else logging.INFO
            _log.log(level, what, made.id, config.model, text, exc_info=error, extra=extra)
        return f"error {made.id}"
