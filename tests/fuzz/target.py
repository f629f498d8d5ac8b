"""What is fuzzed: a decoder, messages that it takes, and the ways in which it may refuse others."""

from __future__ import annotations

import random
import resource
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from tests.fuzz.mutate import Mutator

CORPUS = Path(__file__).with_name("corpus")
# Of a message of at most 64 KiB; generous, because others have the CPUs too.
CPU_SECONDS_MAX = 2.0
HANG_SECONDS = 30
# All messages of a target together: what is kept of one after the other adds up.
MEMORY_BYTES_MAX = 256 * 2**20


@dataclass(frozen=True, slots=True)
class Target:
    """A decoder.

    Attributes:
        name: Of its folder in the corpus, too.
        run: Decodes, and looks at what came out.
        seeds: Messages that it takes.
        refusals: What it may raise. Anything else is a bug.
        words: That mean something to it.
        binary: It reads bytes, not text.
        share: Of the messages, compared to another's: less for one that is slow.
    """

    name: str
    run: Callable[[bytes], object]
    seeds: Sequence[bytes]
    refusals: tuple[type[Exception], ...]
    words: Sequence[bytes] = ()
    binary: bool = True
    share: float = 1.0

    def corpus(self) -> list[bytes]:
        """The seeds, and what guided fuzzing found worth keeping."""
        found = sorted((CORPUS / self.name).glob("*"))
        return [*self.seeds, *(path.read_bytes() for path in found)]

    def mutator(self, seed: int) -> Mutator:
        """Makes wrong messages for it."""
        return Mutator(self.corpus(), random.Random(seed), words=self.words, binary=self.binary)

    def taken(self, message: bytes) -> bool:
        """Whether it takes a message; raises what it must not."""
        try:
            self.run(message)
        except self.refusals as refusal:
            said = str(refusal)
        else:
            return True
        # As much of the message as it may quote, and escaped.
        assert len(said) < 1000 + 8 * len(message), said
        return False


class HungError(Exception):
    """A decoder took too long."""


def fuzz(target: Target, count: int, seed: int) -> int:
    """Run so many wrong messages. Gives how many were taken all the same.

    Raises:
        AssertionError: One was answered with what is no refusal, or took too long or too much memory; it is shown.
    """
    for message in target.corpus():
        target.taken(message)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    mutator = iter(target.mutator(seed))
    taken = 0
    with _alarm():
        for number in range(count):
            message = next(mutator)
            signal.alarm(HANG_SECONDS)
            start = time.thread_time()
            try:
                taken += target.taken(message)
            except Exception as error:
                raise AssertionError(
                    f"{target.name}: message {number} of seed {seed}: {error!r}: {message[:2000].hex()}"
                ) from error
            took = time.thread_time() - start
            assert took < CPU_SECONDS_MAX, f"{target.name}: {took:.1f} s for {message[:2000].hex()}"
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown < MEMORY_BYTES_MAX, f"{target.name}: {grown >> 20} MiB"
    return taken


@contextmanager
def _alarm() -> Iterator[None]:
    def hung(_: int, __: object) -> NoReturn:
        raise HungError(f"nothing for {HANG_SECONDS} s")

    before = signal.signal(signal.SIGALRM, hung)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
