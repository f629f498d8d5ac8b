"""Coverage-guided fuzzing of one decoder: `python -m tests.fuzz.guided TARGET FOLDER [libFuzzer's options]`.

What of its messages reached new code is kept in FOLDER; a message that crashes, hangs or takes too much memory ends it.
Copy what is worth it to `tests/fuzz/corpus/TARGET`, from where all tests of fuzzing start.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(
    include=["predictd.server", "predictd.engines", "predictd.client", "tomllib", "json"]
):
    from tests.fuzz.target import CPU_SECONDS_MAX
    from tests.fuzz.targets import TARGETS


def main(name: str, folder: str, *options: str) -> None:
    """Fuzz until libFuzzer's options say that it is enough."""
    target = TARGETS[name]
    seeds = Path(folder)
    seeds.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.corpus()):
        (seeds / f"seed-{number}").write_bytes(seed)

    def run(data: bytes) -> None:
        target.taken(data)

    limits = (f"-timeout={int(10 * CPU_SECONDS_MAX)}", "-rss_limit_mb=2048", "-max_len=4096")
    atheris.Setup([sys.argv[0], *limits, *options, folder], run)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
