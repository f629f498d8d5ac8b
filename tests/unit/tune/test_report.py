"""The report: table, conclusion, JSON, plot and progress."""

from __future__ import annotations

import io
import json
import math
from xml.etree import ElementTree as ET

import pytest

from predictd.server.config.model_file import read_tuned
from predictd.server.config.tuned import Here, Tuned
from predictd.server.measure.plot import Curve, Mark, plot
from predictd.server.measure.progress import ProgressLine
from predictd.server.measure.statistics import Comparison, Verdict
from predictd.server.tune.candidate import DEFAULT, Candidate
from predictd.server.tune.choice import Result, Row
from predictd.server.tune.objective import Objective, Point
from predictd.server.tune.progress import progress_text
from predictd.server.tune.report import conclusion, data, picture, table
from predictd.server.tune.search import FINAL, Failure, Progress, Trial

ONE, MANY = Point(1, 100.0, 0.001, 0.002, 500), Point(64, 2000.0, 0.02, 0.05, 9000)
TWO = Candidate.of({"instances": 2})
HERE = Here("cpu", 4)
OBJECTIVE = Objective(64)


def result(winner: Candidate | None = TWO, ratio: float = 1.25, *, confirmed: bool = True) -> Result:
    verdict = Verdict.BETTER if confirmed else Verdict.UNSURE
    against = Comparison(ratio, 1.1, ratio, 7 if confirmed else 2, verdict)
    rows = (
        Row(DEFAULT, FINAL, None, (ONE, MANY), MANY),
        Row(TWO, FINAL, against, (ONE, MANY), MANY),
        Row(Candidate.of({"threads": 1}), "instances and threads", against, (MANY,), MANY),
        Row(Candidate.of({"spin": False}), "spinning", None, (), None),
    )
    failures = (Failure(Candidate.of({"engine": "x"}), "no such engine"),)
    ties = (Candidate.of({"threads": 1}),) if winner else ()
    return Result(winner, confirmed, ties, rows, failures, complete=confirmed)


def test_the_table() -> None:
    head, rule, default, two, left, nothing = table(result()).splitlines()
    assert {len(line) for line in (head, rule, default, two, left, nothing)} == {len(head)}
    cells = [cell.strip() for cell in two.strip("|").split("|")]
    assert cells == [
        *("instances 2", "2000", "1.25 (1.1-1.25)", "7", "20 ms", "50 ms", "64", "1 ms", "better"),
    ]
    assert "left behind" in left
    assert rule.replace("|", "").replace("-", "").strip() == ""


def test_the_conclusion() -> None:
    assert list(conclusion(result(), OBJECTIVE)) == [
        "cannot be used: engine x: no such engine",
        "best: instances 2: 1.25 times the answers of the default",
        "as good: threads 1; another run may choose it",
    ]
    unsure = list(conclusion(result(confirmed=False), Objective(64, 0.05)))
    assert unsure[1] == (
        "best: instances 2: 1.25 times the answers within 50 ms of the default, not confirmed: only 2 rounds"
    )
    assert "nothing was better than the default" in conclusion(result(None), OBJECTIVE)
    assert any("--for" in line for line in conclusion(result(None, confirmed=False), OBJECTIVE))
    hopeless = list(conclusion(result(None, 0.9, confirmed=False), OBJECTIVE))
    assert any(line.startswith("nothing looked better than the default; too few rounds") for line in hopeless)
    endless = list(conclusion(result(ratio=math.inf), Objective(64, 0.05)))
    assert endless[1] == "best: instances 2: answers within 50 ms, which the default does not give"


@pytest.mark.parametrize("ratio", [1.25, math.inf])
def test_the_data_is_json_that_reads_back(ratio: float) -> None:
    tuned = Tuned(HERE, {"engine": "onnxruntime", "instances": 2})
    text = json.dumps(data(result(ratio=ratio), OBJECTIVE, tuned, "m", "7-ab"), allow_nan=False)
    read = json.loads(text)
    assert read_tuned(read["tuned"]) == tuned
    assert read["model"] == {"name": "m", "key": "7-ab"}
    assert read["measured"][1]["against_default"]["ratio"] == (ratio if ratio < 9 else None)
    assert read["measured"][1]["points"][1]["answers_per_second"] == 2000.0


def test_the_plot_shows_the_last_stage() -> None:
    svg = picture(result(), OBJECTIVE, "a<b", HERE)
    assert svg is not None
    root = ET.fromstring(svg)
    texts = {element.text for element in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"default", "instances 2", "a<b on cpu with 4 CPUs"} <= texts
    assert "threads 1" not in texts
    assert len(list(root.iter("{http://www.w3.org/2000/svg}polyline"))) == 2


@pytest.mark.parametrize("slo", [None, 0.03])
@pytest.mark.parametrize("points", [(ONE,), (ONE, MANY), (Point(1, 0.01, 30.0, 60.0, 3),)])
def test_every_point_lies_inside_of_the_plot(points: tuple[Point, ...], slo: float | None) -> None:
    marks = tuple(Mark(point.per_second, point.p99_seconds, "") for point in points)
    root = ET.fromstring(plot("t", [Curve("c", marks)], slo))
    dots = list(root.iter("{http://www.w3.org/2000/svg}circle"))
    assert len(dots) == len(points)
    for dot in dots:
        assert 80 <= float(dot.attrib["cx"]) <= 800
        assert 50 <= float(dot.attrib["cy"]) <= 460
    assert ("SLO 30 ms" in ET.tostring(root, "unicode")) == (slo is not None)


class Terminal(io.StringIO):
    def isatty(self) -> bool:  # type: ignore[explicit-override]
        return True


def test_progress() -> None:
    text = progress_text(Trial(TWO, "spinning", 2, 0, whole=False), Progress(2, 5, 3, 8), 72.2)
    assert text == "2/5 spinning: 3/8: instances 2 (1m12s left)"
    assert progress_text(Trial(DEFAULT, FINAL, 5, 0, whole=True), Progress(5, 5, 1, 8), -1).endswith(
        "(0s left)"
    )
    plain, terminal = io.StringIO(), Terminal()
    for stream in (plain, terminal):
        line = ProgressLine(stream)
        line.show("one")
        line.show("two")
        line.clear()
    assert plain.getvalue() == "one\ntwo\n"
    assert terminal.getvalue() == "\r\x1b[Kone\r\x1b[Ktwo\r\x1b[K"
