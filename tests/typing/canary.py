"""Run mypy over must_fail.py, one deliberate error a source root, and fail unless it finds each of them."""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def main() -> int:
    """0 when every deliberate error is found."""
    result = subprocess.run(
        [sys.executable, "-m", "mypy", str(HERE / "must_fail.py")],
        capture_output=True,
        text=True,
        check=False,
        cwd=HERE.parents[1],
    )
    lines = (HERE / "must_fail.py").read_text().splitlines()
    expected = {number for number, line in enumerate(lines, 1) if line.startswith("wrong_")}
    found = {number for number in expected if f"must_fail.py:{number}: error: Incompatible" in result.stdout}
    if found != expected:
        print(f"mypy missed deliberate errors in lines {sorted(expected - found)}:\n{result.stdout}")
        return 1
    print(f"canary: mypy found all {len(expected)} deliberate errors")
    return 0


if __name__ == "__main__":
    sys.exit(main())
