"""What an API adapter may ask of the front end, whatever protocol it speaks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from predictd.server.frontend.heading import Heading
    from predictd.server.frontend.inference import (
        InferRequest,
        InferResponse,
        LaneStatistics,
        ModelInfo,
        VersionInfo,
    )
    from predictd.server.frontend.pending import Pending, Reply
    from predictd.server.frontend.uploads import Uploads


class Core(Protocol):
    """Answers requests and tells about models. All calls are made on the front end's event loop."""

    async def infer(self, request: InferRequest, api: str, deadline_ns: int) -> InferResponse:
        """Check a request against the model's signature, run it and wait for the answer.

        Cancelling the coroutine cancels the request.

        Args:
            request: As decoded.
            api: The protocol's name, a label of metrics.
            deadline_ns: CLOCK_MONOTONIC nanoseconds after which nobody waits any more; 0 for none.

        Raises:
            RequestError: There is no answer; its class says why.
        """

    def begin(self, request: InferRequest, api: str, deadline_ns: int, reply: Reply) -> Pending | None:
        """Have a request answered as by `infer`, if it can be without a task of its own.

        Args:
            request: As decoded.
            api: The protocol's name, a label of metrics.
            deadline_ns: As of `infer`.
            reply: Gets the answer, perhaps before this returns.

        Returns:
            What is to be abandoned when the client goes before there is an answer; None if that is up to the reply.
        """

    @property
    def uploads(self) -> Uploads:
        """Reads requests."""

    @property
    def pressed(self) -> bool:
        """There is so much to do that requests are worth a look before they are received and before they are parsed."""

    def check_unread(self, heading: Heading, api: str, deadline_ns: int) -> None:
        """Refuse a call of which only the headers have come, if its request would be refused.

        Args:
            heading: What the headers say.
            api: The protocol's name.
            deadline_ns: As in `infer`.

        Raises:
            OverloadedError: There is no point in receiving it.
        """

    def check_unparsed(self, heading: Heading, api: str, deadline_ns: int) -> None:
        """Refuse a request of which only the heading was read, if it would be refused. As `check_unread`."""

    def models(self) -> Sequence[ModelInfo]:
        """All models, in the order of their names."""

    def model(self, name: str) -> ModelInfo:
        """One model.

        Raises:
            UnknownModelError: There is no such model.
        """

    def version(self, name: str, version: int | None, label: str | None) -> VersionInfo:
        """The version that stands for this choice; always the same one, also where the default is split.

        Raises:
            UnknownModelError: There is no such model, version or label.
            ModelUnavailableError: It exists and is not READY.
        """

    def draw(self, name: str, version: int | None, label: str | None) -> VersionInfo:
        """The version for one request, as `infer` chooses it: where the default is split it is drawn.

        Raises:
            UnknownModelError: There is no such model, version or label.
            ModelUnavailableError: It exists and is not READY.
        """

    async def statistics(self) -> Sequence[LaneStatistics]:
        """What happened in each lane, over all processes."""

    @property
    def ready(self) -> bool:
        """Every lane of the start-up configuration is warm, and the daemon is not draining."""
