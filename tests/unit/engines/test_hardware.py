import platform
import re

import pytest

from predictd.engines.hardware import cpu_fingerprint, fingerprint

X86 = """\
processor\t: 0
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 143
model name\t: Intel(R) Xeon(R) Platinum 8480+
stepping\t: 8
microcode\t: 0x2b000181
cpu MHz\t\t: 2000.000
flags\t\t: fpu sse2 avx avx2 avx512f amx_tile constant_tsc ibrs

"""
ARM = """\
processor\t: 0
BogoMIPS\t: 2100.00
Features\t: fp asimd sve i8mm bf16
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd4f
CPU revision\t: 1

"""
LITTLE = ARM.replace("0xd4f", "0xd05").replace(" sve", "")


def test_it_names_vendor_family_model_and_stepping() -> None:
    text = fingerprint(X86, "x86_64")
    assert re.fullmatch(r"x86_64-GenuineIntel-6-143-8-[0-9a-f]{12}", text)


def test_it_names_implementer_and_part_of_an_arm_cpu() -> None:
    text = fingerprint(ARM, "aarch64")
    assert re.fullmatch(r"aarch64-0x41-8-0x0-0xd4f-1-[0-9a-f]{12}", text)


@pytest.mark.parametrize(
    "same",
    [
        X86 * 64,
        X86.replace("2000.000", "3800.123"),
        X86.replace("0x2b000181", "0x2b000590"),
        X86.replace("ibrs", "its ibrs bhi"),
        X86.replace("avx avx2", "avx2 avx"),
        X86.replace("processor\t: 0", "processor\t: 7"),
    ],
    ids=["more CPUs", "frequency", "microcode", "mitigations", "order", "number"],
)
def test_what_the_cpu_computes_with_stays_the_same(same: str) -> None:
    assert fingerprint(same, "x86_64") == fingerprint(X86, "x86_64")


@pytest.mark.parametrize(
    "other",
    [
        X86.replace(" amx_tile", ""),
        X86.replace(" avx512f", ""),
        X86.replace("143", "207"),
        X86.replace("stepping\t: 8", "stepping\t: 4"),
        X86.replace("GenuineIntel", "AuthenticAMD"),
        X86 + X86.replace("143", "190"),
    ],
    ids=["no AMX", "no AVX-512", "model", "stepping", "vendor", "hybrid"],
)
def test_another_cpu_has_another_fingerprint(other: str) -> None:
    assert fingerprint(other, "x86_64") != fingerprint(X86, "x86_64")


def test_big_and_little_cores_are_both_in_it_in_any_order() -> None:
    assert fingerprint(ARM + LITTLE, "aarch64") == fingerprint(LITTLE + ARM + LITTLE, "aarch64")
    assert len({fingerprint(text, "aarch64") for text in (ARM, LITTLE, ARM + LITTLE)}) == 3


def test_it_can_be_a_file_name() -> None:
    strange = X86.replace("GenuineIntel", "../odd vendor.")
    assert re.fullmatch(r"[A-Za-z0-9_-]+", fingerprint(strange, "x86_64"))


def test_this_machine_has_one() -> None:
    assert cpu_fingerprint() == cpu_fingerprint()
    assert cpu_fingerprint().startswith(platform.machine() + "-")
