"""How far the search is, in words."""

from __future__ import annotations

from predictd.server.tune.search import Progress, Trial


def progress_text(trial: Trial, progress: Progress, left_seconds: float) -> str:
    """A trial that begins, and how long all will take at most."""
    minutes, seconds = divmod(max(0, round(left_seconds)), 60)
    left = f"{minutes}m{seconds:02d}s" if minutes else f"{seconds}s"
    where = f"{progress.stage}/{progress.stages} {trial.stage}: {progress.trial}/{progress.trials}"
    return f"{where}: {trial.candidate} ({left} left)"
