"""Which memory allocator a worker runs with, and how it is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from predictd.server.launch.facilities import SONAMES, Facilities
from predictd.server.launch.variables import Variable, preloaded

_PACKAGES = {"jemalloc": "libjemalloc2", "tcmalloc": "libtcmalloc-minimal4"}
# The first with glibc.malloc.hugetlb.
_GLIBC_WITH_HUGE_PAGES = (2, 35)
_JEMALLOC = Variable(
    "MALLOC_CONF",
    "background_thread:true,metadata_thp:auto",
    "a thread of jemalloc's own gives memory back, not a request that happens to free some",
)
_HUGE_PAGES = Variable(
    "GLIBC_TUNABLES",
    "glibc.malloc.hugetlb=1",
    "huge pages are for programs that ask (madvise), so malloc asks: fewer page faults in large tensors",
)


@dataclass(frozen=True, slots=True)
class AllocatorChoice:
    """The allocator of a worker.

    Attributes:
        library: To preload; None leaves what is there.
        variables: What else it is told.
        reason: Why, in one line.
        warning: Why it is not the one that was asked for.
    """

    library: str | None
    variables: tuple[Variable, ...]
    reason: str
    warning: str | None = None


def choose_allocator(
    asked: str | None, facilities: Facilities, exported: Mapping[str, str]
) -> AllocatorChoice:
    """Decide which allocator a worker gets.

    Args:
        asked: "glibc" or one of SONAMES; None lets the plan decide.
        facilities: What there is.
        exported: The variables that the user exported.
    """
    own = next((path for path in preloaded(exported) if "malloc" in path.rpartition("/")[2]), None)
    if own is not None:
        reason = f"allocator: {own}, preloaded by the user"
        return AllocatorChoice(None, (), reason, _overruled(asked, own))
    if asked is not None and asked in SONAMES:
        library = facilities.allocators.get(asked)
        if library is not None:
            variables = (_JEMALLOC,) if asked == "jemalloc" else ()
            return AllocatorChoice(library, variables, f"allocator: {asked}, as asked")
        names = " or ".join(SONAMES[asked])
        missing = f"allocator {asked} is asked for, but there is no {names} (Debian: {_PACKAGES[asked]})"
        return _glibc(facilities, "the one asked for is not there", f"{missing}: glibc's is used")
    return _glibc(facilities, "as asked" if asked else "no other is faster for every model")


def _glibc(facilities: Facilities, why: str, warning: str | None = None) -> AllocatorChoice:
    reason = f"allocator: glibc's, {why}"
    wants = facilities.transparent_hugepages == "madvise"
    can = facilities.glibc is not None and facilities.glibc >= _GLIBC_WITH_HUGE_PAGES
    return AllocatorChoice(None, (_HUGE_PAGES,) if wants and can else (), reason, warning)


def _overruled(asked: str | None, own: str) -> str | None:
    if asked is None or asked in own:
        return None
    return f"allocator {asked} is asked for, but LD_PRELOAD names {own}, which is exported and kept"
