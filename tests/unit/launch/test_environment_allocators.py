"""Which allocator a worker gets, and how it is told."""

import pytest

from predictd.server.launch.allocators import AllocatorChoice, choose_allocator
from predictd.server.launch.facilities import Facilities

BOTH = {"jemalloc": "/lib/libjemalloc.so.2", "tcmalloc": "/lib/libtcmalloc_minimal.so.4"}


def told(choice: AllocatorChoice) -> dict[str, str]:
    assert all(variable.reason for variable in choice.variables)
    return {variable.name: variable.value for variable in choice.variables}


@pytest.mark.parametrize("asked", [None, "glibc"])
def test_glibc_asks_for_huge_pages_where_they_must_be_asked_for(asked: str | None) -> None:
    choice = choose_allocator(asked, Facilities(BOTH, transparent_hugepages="madvise", glibc=(2, 35)), {})
    assert told(choice) == {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
    assert (choice.library, choice.warning) == (None, None)


@pytest.mark.parametrize(
    ("pages", "glibc"),
    [
        ("always", (2, 36)),
        ("never", (2, 36)),
        (None, (2, 36)),
        ("madvise", (2, 34)),
        ("madvise", None),
    ],
)
def test_glibc_is_told_nothing_where_that_has_no_effect(
    pages: str | None, glibc: tuple[int, int] | None
) -> None:
    facilities = Facilities(transparent_hugepages=pages, glibc=glibc)
    assert told(choose_allocator(None, facilities, {})) == {}


def test_another_one_is_preloaded_where_it_is_asked_for() -> None:
    facilities = Facilities(BOTH, transparent_hugepages="madvise", glibc=(2, 36))
    jemalloc = choose_allocator("jemalloc", facilities, {})
    assert (jemalloc.library, jemalloc.warning) == ("/lib/libjemalloc.so.2", None)
    assert told(jemalloc) == {"MALLOC_CONF": "background_thread:true,metadata_thp:auto"}
    tcmalloc = choose_allocator("tcmalloc", facilities, {})
    assert (tcmalloc.library, told(tcmalloc)) == ("/lib/libtcmalloc_minimal.so.4", {})
    assert tcmalloc.reason == "allocator: tcmalloc, as asked"


def test_one_that_is_missing_is_named_with_its_package_and_glibcs_takes_its_place() -> None:
    choice = choose_allocator("tcmalloc", Facilities(transparent_hugepages="madvise", glibc=(2, 36)), {})
    assert choice.library is None
    assert told(choice) == {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
    assert choice.reason == "allocator: glibc's, the one asked for is not there"
    assert choice.warning == (
        "allocator tcmalloc is asked for, but there is no libtcmalloc_minimal.so.4 or libtcmalloc.so.4 "
        "(Debian: libtcmalloc-minimal4): glibc's is used"
    )


@pytest.mark.parametrize("preloaded", ["/x/libmimalloc.so", "/x/liba.so:/x/libmimalloc.so.2"])
def test_one_that_the_user_preloads_stays(preloaded: str) -> None:
    facilities = Facilities(BOTH, transparent_hugepages="madvise", glibc=(2, 36))
    own = choose_allocator("jemalloc", facilities, {"LD_PRELOAD": preloaded})
    path = preloaded.rpartition(":")[2]
    assert (own.library, own.variables) == (None, ())
    assert own.reason == f"allocator: {path}, preloaded by the user"
    assert own.warning == (
        f"allocator jemalloc is asked for, but LD_PRELOAD names {path}, which is exported and kept"
    )
    assert choose_allocator(None, facilities, {"LD_PRELOAD": preloaded}).warning is None


def test_nothing_is_wrong_with_asking_for_what_the_user_preloads() -> None:
    choice = choose_allocator("jemalloc", Facilities(BOTH), {"LD_PRELOAD": "/opt/libjemalloc.so.2"})
    assert (choice.library, choice.warning) == (None, None)
