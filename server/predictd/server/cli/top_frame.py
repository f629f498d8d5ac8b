"""What `predictd top` shows: a status document as lines and tables. No I/O; rich draws what comes of it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from predictd.server.observe.escape import escape_controls

Document = Mapping[str, Any]

_STYLES: Final = {
    **dict.fromkeys(("READY", "serving", "running"), "green"),
    **dict.fromkeys(("FAILED", "failed", "backoff", "error", "critical"), "red"),
}
_BLOCKS: Final = "▁▂▃▄▅▆▇█"
_NOTHING: Final = "-"
_SPARK_POINTS: Final = 60
_EVENTS_MAX: Final = 3
_REASONS_MAX: Final = 2
# Titles and the lines above, between and below the tables.
_LINES_BESIDE_ROWS: Final = 16
# Below so many columns what says least is left out.
_WIDE_COLUMNS: Final = 110
_CELL_COLUMNS_MAX: Final = 16
# Numbers that change their length must not move what stands beside them.
_NUMBER_COLUMNS: Final = 7
_GAP_COLUMNS: Final = 2
_ROWS_MIN: Final = 3


def frame(
    status: Document, *, target: str, columns: int, note: str = "", lines: int | None = None
) -> RenderableType:
    """Everything on one screen.

    Args:
        status: What /status.json says.
        target: Where from.
        columns: How wide the screen is.
        note: Said beside that, such as that the daemon no longer answers.
        lines: What the screen has room for; None for all there is.
    """
    models = _by_traffic(status["models"])
    processes = list(status["processes"])
    model_rows, process_rows = _shares(len(models), len(processes), lines)
    return Group(
        _head(status, target, note),
        _numbers(status, columns),
        *_curves(status["history"]),
        Text(),
        _models(models[:model_rows], columns),
        *_more(len(models) - model_rows, "version"),
        *_reasons(models, lines),
        Text(),
        _processes(processes[:process_rows], columns),
        *_more(len(processes) - process_rows, "process", "processes"),
        *_events(status["events"], lines),
    )


def _shares(models: int, processes: int, lines: int | None) -> tuple[int, int]:
    """Rows for each of the two tables; what one leaves is the other's."""
    if lines is None:
        return models, processes
    room = max(2 * _ROWS_MIN, lines - _LINES_BESIDE_ROWS)
    half = room // 2
    shown = min(models, max(half, room - processes))
    return shown, min(processes, room - shown)


def _head(status: Document, target: str, note: str) -> Text:
    ready = Text("ready", "bold green") if status["ready"] else Text("not ready", "bold red")
    reasons = "".join(f", {reason}" for reason in status["reasons"])
    up = status["unix_seconds"] - status["started_unix_seconds"]
    rest = f"{reasons}  {target}  version {status['build']['version']}, up {_age(up)}  "
    return Text.assemble(
        ("predictd ", "bold"),
        ready,
        _safe(rest),
        (_safe(note), "bold red"),
        no_wrap=True,
        overflow="ellipsis",
    )


def _numbers(status: Document, columns: int) -> Text:
    now = status["now"]
    resident = sum(process["resident_bytes"] or 0 for process in status["processes"])
    parts = [
        f"OK {_rate(now['requests_per_second'])}",
        f"not OK {_rate(now['errors_per_second'])}",
        f"p50 {_duration(now['p50_seconds'])}",
        f"p99 {_duration(now['p99_seconds'])}",
        f"waiting {status['waiting']}",
        f"in flight {status['in_flight']}",
    ]
    if columns >= _WIDE_COLUMNS:
        parts += [f"p99.9 {_duration(now['p999_seconds'])}", f"memory {_size(resident)}"]
    return Text("  ".join(parts), no_wrap=True, overflow="ellipsis")


def _curves(history: Document) -> Iterable[Text]:
    """The last two minutes in two lines."""
    for title, key, form in (("OK/s", "requests_per_second", _number), ("p99", "p99_seconds", _duration)):
        values = history[key][-_SPARK_POINTS:]
        highest = max((value for value in values if value is not None), default=None)
        end = "" if highest is None else f" highest {form(highest)}"
        yield Text.assemble((f"{title:<5}", "dim"), (_spark(values, highest or 0.0), "cyan"), (end, "dim"))


def _spark(values: Sequence[float | None], highest: float) -> str:
    steps = len(_BLOCKS) - 1
    return "".join(
        " " if value is None else _BLOCKS[round(value / highest * steps) if highest else 0]
        for value in values
    )


def _by_traffic(models: Iterable[Document]) -> list[tuple[Document, Document]]:
    """Each version with its model: what failed first, then the busiest."""
    pairs = [(model, version) for model in models for version in model["versions"]]
    return sorted(
        pairs,
        key=lambda pair: (
            pair[1]["state"] == "READY",
            -pair[1]["now"]["requests_per_second"],
            pair[0]["name"],
            -pair[1]["version"],
        ),
    )


def _models(pairs: Iterable[tuple[Document, Document]], columns: int) -> Table:
    titles = ["MODEL", ">VERSION", "STATE", ">OK", ">NOT OK", ">OK NOW", ">P50", ">P99"]
    more = [">P99.9", ">ROWS", "TRAFFIC"] if columns >= _WIDE_COLUMNS else []
    return _table([*titles, *more], (_model(*pair) for pair in pairs), columns)


def _model(model: Document, version: Document) -> list[Text]:
    """All columns; the last ones are shown where there is room."""
    now, requests, runs = version["now"], version["requests"], version["runs"]
    good = requests.get("OK", 0)
    return [
        Text(_safe(model["name"])),
        Text(str(version["version"])),
        _state(version["state"]),
        Text(str(good)),
        Text(str(sum(requests.values()) - good)),
        Text(_rate(now["requests_per_second"])),
        *(Text(_duration(now[f"{name}_seconds"])) for name in ("p50", "p99", "p999")),
        Text(_number(version["rows"] / runs) if runs else _NOTHING),
        Text(_safe(_traffic(model, version["version"]))),
    ]


def _reasons(pairs: Iterable[tuple[Document, Document]], lines: int | None) -> Iterable[Text]:
    told = [
        f"{model['name']} version {version['version']}: {version['reason']}"
        for model, version in pairs
        if version["reason"]
    ]
    for line in told if lines is None else told[:_REASONS_MAX]:
        yield _fitted(Text(_safe(line), "red"), lines)


def _traffic(model: Document, version: int) -> str:
    parts = [label["name"] for label in model["labels"] if label["version"] == version]
    shares = [f"{share['percent']} %" for share in model["split"] if share["version"] == version]
    default = ["default"] if not model["split"] and model["default_version"] == version else []
    return ", ".join((*parts, *shares, *default)) or _NOTHING


def _processes(processes: Iterable[Document], columns: int) -> Table:
    titles = ["PROCESS", "STATE", ">PID", "CPUS", ">THREADS", ">RESTARTS", ">CPU S", ">RESIDENT", ">ARENAS"]
    return _table(titles, map(_process, processes), columns)


def _process(process: Document) -> list[Text]:
    return [
        Text(_safe(f"{process['role']} {process['index']}")),
        _state(process["state"]),
        Text(str(process.get("pid") or _NOTHING)),
        Text(_safe(str(process.get("cpus") or "any"))),
        Text(str(process.get("threads") or _NOTHING)),
        Text(str(process["restarts"])),
        Text(f"{process['cpu_seconds']:.1f}"),
        Text(_size(process["resident_bytes"])),
        Text(_size(process["arena_bytes"])),
    ]


def _events(events: Sequence[Document], lines: int | None) -> Iterable[RenderableType]:
    for at, event in enumerate(events if lines is None else events[:_EVENTS_MAX]):
        if at == 0:
            yield Text()
        when = time.strftime("%H:%M:%S", time.localtime(event["unix_seconds"]))
        more = f" (and {event['left_out']} more like it)" if event["left_out"] else ""
        words = _safe(f" {event['role']}: {event['text']}{more}")
        yield _fitted(Text.assemble((f"{when} ", "dim"), _state(event["level"]), words), lines)


def _fitted(text: Text, lines: int | None) -> Text:
    """On a screen, one line of it; where there is room, as many as it takes."""
    if lines is not None:
        text.no_wrap, text.overflow = True, "ellipsis"
    return text


def _more(left: int, noun: str, nouns: str = "") -> Iterable[Text]:
    if left > 0:
        yield Text(f"and {left} more {noun if left == 1 else nouns or noun + 's'}", "dim")


def _table(titles: Sequence[str], rows: Iterable[Sequence[Text]], columns: int) -> Table:
    """A table without lines, whose first column gives way; a title that begins with ">" aligns to the right.

    A row may have more cells than there are titles: the last ones are left out.
    """
    names = [title.removeprefix(">") for title in titles]
    kept = [row[: len(titles)] for row in rows]
    widest = [
        max(len(name), *(row[at].cell_len for row in kept), 0) if kept else len(name)
        for at, name in enumerate(names)
    ]
    least = [_NUMBER_COLUMNS if title.startswith(">") else 0 for title in titles]
    widths = [max(low, min(width, _CELL_COLUMNS_MAX)) for low, width in zip(least, widest, strict=True)][1:]
    room = columns - sum(width + _GAP_COLUMNS for width in widths)
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, _GAP_COLUMNS, 0, 0))
    for title, name, width in zip(titles, names, (max(8, min(widest[0], room)), *widths), strict=True):
        justify: Literal["left", "right"] = "right" if title.startswith(">") else "left"
        table.add_column(name, justify=justify, no_wrap=True, overflow="ellipsis", width=width)
    for row in kept:
        table.add_row(*row)
    return table


def _state(state: str) -> Text:
    return Text(_safe(state), _STYLES.get(state, "yellow"))


def _safe(text: str) -> str:
    """Whoever answers at an address may send anything; a terminal must not obey it."""
    return escape_controls(text)


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _rate(value: float) -> str:
    return f"{_number(value)}/s"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return _NOTHING
    if seconds < 1e-3:
        return f"{_number(seconds * 1e6)} us"
    return f"{_number(seconds * 1e3)} ms" if seconds < 1 else f"{_number(seconds)} s"


def _size(size_bytes: float | None) -> str:
    if size_bytes is None:
        return _NOTHING
    for unit in ("B", "KiB", "MiB"):
        if size_bytes < 1000:
            return f"{_number(size_bytes)} {unit}"
        size_bytes /= 1024
    return f"{_number(size_bytes)} GiB"


def _age(seconds: float) -> str:
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min"
    return f"{whole // 3600} h" if whole < 86400 else f"{whole // 86400} d"
