import os
from pathlib import Path

import pytest

from predictd.server.launch.facilities import Facilities, read_facilities
from tests.fixtures.sysfs import FakeSystem

MULTIARCH = f"{os.uname().machine}-linux-gnu"
VERSION = "\x00GNU C Library (Debian GLIBC 2.36-9+deb12u14) stable release version 2.36.\nCopyright"


@pytest.fixture(name="system")
def _system(tmp_path: Path) -> FakeSystem:
    return FakeSystem(tmp_path)


def facilities(system: FakeSystem) -> Facilities:
    return read_facilities(system.root, prefix=Path("/opt/venv"))


def test_of_an_empty_system_nothing_is_known(system: FakeSystem) -> None:
    assert facilities(system) == Facilities({}, None, None, None, None, None)


@pytest.mark.parametrize(
    "folder",
    [f"/usr/lib/{MULTIARCH}", f"/lib/{MULTIARCH}", "/usr/lib64", "/lib64", "/usr/lib", "/usr/local/lib"],
)
def test_libraries_are_found_by_soname_where_distributions_put_them(system: FakeSystem, folder: str) -> None:
    for name in ("libjemalloc.so.2", "libtcmalloc_minimal.so.4", "libiomp5.so", "libgomp.so.1"):
        system.write(f"{folder}/{name}", "ELF")
    found = facilities(system)
    assert found.allocators == {
        "jemalloc": f"{folder}/libjemalloc.so.2",
        "tcmalloc": f"{folder}/libtcmalloc_minimal.so.4",
    }
    assert found.libiomp5 == f"{folder}/libiomp5.so"
    assert found.libgomp == f"{folder}/libgomp.so.1"


def test_files_for_developers_and_of_other_machines_are_not_taken(system: FakeSystem) -> None:
    system.write("/usr/lib/libjemalloc.so", "ELF")
    system.write("/usr/lib/other-linux-gnu/libjemalloc.so.2", "ELF")
    system.write("/usr/lib/libtcmalloc.so.4/not-a-library", "")
    assert facilities(system).allocators == {}


def test_the_small_tcmalloc_is_preferred(system: FakeSystem) -> None:
    system.write("/usr/lib64/libtcmalloc.so.4", "ELF")
    assert facilities(system).allocators == {"tcmalloc": "/usr/lib64/libtcmalloc.so.4"}
    system.write("/usr/lib/libtcmalloc_minimal.so.4", "ELF")
    assert facilities(system).allocators == {"tcmalloc": "/usr/lib/libtcmalloc_minimal.so.4"}


def test_openmp_runtimes_of_the_python_environment_come_first(system: FakeSystem) -> None:
    system.write("/usr/lib/libiomp5.so", "ELF")
    system.write("/usr/lib/libgomp.so.1", "ELF")
    system.write("/opt/venv/lib/libiomp5.so", "ELF")
    packages = "/opt/venv/lib/python3.11/site-packages"
    system.write(f"{packages}/torch/lib/libgomp.so.1", "ELF")
    assert facilities(system).libiomp5 == "/opt/venv/lib/libiomp5.so"
    assert facilities(system).libgomp == f"{packages}/torch/lib/libgomp.so.1"


def test_a_bundled_runtime_has_a_hash_in_its_name(system: FakeSystem) -> None:
    path = "/opt/venv/lib/python3.12/site-packages/torch.libs/libgomp-a34b3233.so.1.0.0"
    system.write(path, "ELF")
    assert facilities(system).libgomp == path


@pytest.mark.parametrize(
    ("text", "expected"),
    [("always [madvise] never", "madvise"), ("[always] madvise never", "always"), ("", None)],
)
def test_huge_pages_are_as_the_kernel_is_told(system: FakeSystem, text: str, expected: str | None) -> None:
    system.write("/sys/kernel/mm/transparent_hugepage/enabled", text)
    assert facilities(system).transparent_hugepages == expected


def test_cpus_may_have_several_governors(system: FakeSystem) -> None:
    for cpu, governor in enumerate(["powersave", "powersave", "performance"]):
        system.write(f"/sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor", governor)
    assert facilities(system).governor == "performance,powersave"


def test_the_c_library_says_its_version_itself(system: FakeSystem) -> None:
    system.write(f"/lib/{MULTIARCH}/libc.so.6", VERSION)
    assert facilities(system).glibc == (2, 36)


def test_another_c_library_has_none(system: FakeSystem) -> None:
    system.write("/lib/libc.so.6", "musl")
    assert facilities(system).glibc is None


def test_this_system_can_be_read() -> None:
    found = read_facilities()
    assert found.transparent_hugepages in {None, "always", "madvise", "never"}
    assert all(Path(path).is_file() for path in found.allocators.values())
    # musl has no such string, and no version of this name.
    said = os.confstr("CS_GNU_LIBC_VERSION") if "CS_GNU_LIBC_VERSION" in os.confstr_names else None
    assert found.glibc is None or f"glibc {found.glibc[0]}.{found.glibc[1]}" == said
