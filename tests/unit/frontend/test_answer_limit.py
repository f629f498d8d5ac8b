"""How large an answer may be, as far as it is known before it is computed, and afterwards."""

from __future__ import annotations

import asyncio

import pytest

from predictd.engines.api import DType
from predictd.server.config.lane import WireTensor
from predictd.server.errors import InvalidRequestError
from predictd.server.frontend.answer_limit import AnswerLimit, ResponseLimit
from predictd.server.frontend.routing import Routes
from tests.fixtures.frontend import SECRET, doubled, publication, request, signature, view
from tests.fixtures.scripted_workers import Rig, play, sent, settle, start
from tests.unit.frontend.core import Setup, answered

FIXED = WireTensor("y", DType.FP32, (-1, 3))
VARYING = WireTensor("z", DType.FP64, (-1, -1))
STRINGS = WireTensor("s", DType.BYTES, (-1, 2))


@pytest.mark.parametrize(
    ("response", "message", "limit"),
    [
        (0, 100, ResponseLimit(100, "max_message_size")),
        (99, 100, ResponseLimit(99, "max_response_size")),
        (101, 100, ResponseLimit(100, "max_message_size")),
    ],
)
def test_the_tighter_limit_is_named(response: int, message: int, limit: ResponseLimit) -> None:
    assert ResponseLimit.of(response, message) == limit


@pytest.mark.parametrize(
    ("batches", "wanted", "rows", "least_bytes"),
    [
        (True, (0,), 4, 48),
        (True, (1,), 4, 0),
        (True, (2,), 4, 32),
        (True, (2, 0), 4, 80),
        (False, (0,), 1, 0),
    ],
)
def test_an_answer_has_at_least_what_its_fixed_dimensions_say(
    batches: bool, wanted: tuple[int, ...], rows: int, least_bytes: int
) -> None:
    outputs = signature(outputs=(FIXED, VARYING, STRINGS), batches=batches)
    limit = AnswerLimit.of("m", outputs, ResponseLimit(least_bytes, "max_response_size"))
    limit.expect(wanted, rows)
    if least_bytes:
        tighter = AnswerLimit.of("m", outputs, ResponseLimit(least_bytes - 1, "max_response_size"))
        text = (
            f"'m' has {least_bytes} bytes and may have {least_bytes - 1} .max_response_size.; ask for fewer"
        )
        with pytest.raises(InvalidRequestError, match=text):
            tighter.expect(wanted, rows)


def test_dimensions_of_any_size_do_not_overflow() -> None:
    huge = signature(outputs=(WireTensor("y", DType.FP32, (-1, 2**62, 2**62)),))
    with pytest.raises(InvalidRequestError):
        AnswerLimit.of("m", huge, ResponseLimit(2**31 - 1, "max_message_size")).expect((0,), 2**31)


def test_an_answer_that_is_known_to_be_too_large_is_not_computed() -> None:
    setup = Setup(answered)
    setup.routes._response_limit = ResponseLimit(16, "max_response_size")
    setup.routes.publish(publication())
    outputs = (FIXED, WireTensor("z", DType.FP32, (-1, 2)))
    setup.routes.publish(publication(view(signature=signature(outputs=outputs))))
    for values, names in (((1, 2), ["y"]), ((1, 2, 3, 4), ["z"])):
        asyncio.run(setup.infer(request(*values, outputs=names)))
    for values, names in (((1, 2), []), ((1, 2, 3, 4), ["y"])):
        with pytest.raises(InvalidRequestError, match=r"max_response_size"):
            asyncio.run(setup.infer(request(*values, outputs=names)))
    assert len(setup.dispatcher.wanted) == 2


def test_an_answer_that_turns_out_too_large_is_not_copied() -> None:
    async def scenario(rig: Rig) -> None:
        pool, worker = start(rig)
        routes = Routes(SECRET, response_limit=ResponseLimit(8, "max_response_size"))
        routes.publish(
            publication(view(signature=signature(outputs=(WireTensor("y", DType.FP32, (-1, -1)),))))
        )
        one = routes.lane("m", None, None)
        small = await sent(rig, 1, 2, to=one)
        large = await sent(rig, 1, 2, 3, 4, to=one)
        worker.answer(pool.read())
        await settle(rig)
        assert small.result().outputs[0].data == doubled(1, 2)
        assert str(large.exception()).startswith(
            "the answer of model 'm' has 16 bytes and may have 8 (max_resp"
        )

    play(scenario)
