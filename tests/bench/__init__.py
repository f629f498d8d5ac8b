"""The benchmark: `python -m tests.bench` measures the daemon and its yardsticks, and prints ratios."""
