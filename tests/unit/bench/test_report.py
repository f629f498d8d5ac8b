"""What people and programs are shown of a bench."""

from __future__ import annotations

import dataclasses
import socket
import threading
from html.parser import HTMLParser
from pathlib import Path

import click
import msgspec
import pytest
from typing_extensions import override

from predictd.server.bench.access import PLAIN
from predictd.server.bench.batches import between, read, scrape
from predictd.server.bench.page import html
from predictd.server.bench.report import compare, text
from predictd.server.bench.report import read as read_result
from predictd.server.bench.results import (
    CURVE,
    QUANTILES,
    Batches,
    ClientSide,
    ModelResult,
    Point,
    Quantile,
    Result,
    SloResult,
)
from predictd.server.bench.session import Level
from predictd.server.cli import bench_network
from predictd.server.measure.engine_process import MeasureError


def point(callers: int = 0, rate: float = 0.0, scale: float = 1.0, **more: object) -> Point:
    fields = {
        "callers": callers,
        "rate": rate,
        "seconds": 5.0,
        "warm_up_seconds": 2.0,
        "steady": True,
        "answers": 5000,
        "per_second": 1000 / scale,
        "per_second_low": 990 / scale,
        "per_second_high": 1010 / scale,
        "mean_seconds": 0.002 * scale,
        "max_seconds": 0.1 * scale,
        "quantiles": {
            name: Quantile(q, 0.01 * q * scale, 0.0099 * q * scale, 0.0101 * q * scale)
            for name, q in QUANTILES.items()
        },
        "curve": [Quantile(q, 0.001 + q * 0.01 * scale) for q in CURVE],
        "errors": {},
        "unanswered": 0,
        "in_flight": 3.0,
        "client": ClientSide(0.5, 0.0, 0.0, []),
        **more,
    }
    return msgspec.convert(fields, Point)


def result(*points: Point, slo: SloResult | None = None, target: str = "here:1") -> Result:
    return Result(
        target=target,
        api="oip",
        streams=False,
        models=["m<1>"],
        inputs="random",
        arrivals="poisson",
        connections=8,
        processes=1,
        machine={"CPUs": "2 of 2"},
        began="2026-01-01T00:00:00+00:00",
        points=list(points),
        slo=slo,
    )


class Tags(HTMLParser):
    """Holds a page to its tags being closed, and to needing nothing from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.count: dict[str, int] = {}

    @override
    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.count[tag] = self.count.get(tag, 0) + 1
        assert not {"src", "href", "onload"} & {name for name, _ in attrs}
        assert tag not in {"script", "link", "img", "iframe"}
        if tag != "meta":
            self.open.append(tag)

    @override
    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.count[tag] = self.count.get(tag, 0) + 1

    @override
    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_numbers_have_no_exponent_and_few_digits() -> None:
    fast = point(rate=250_000, per_second=223_456.7, per_second_low=220_000.0, per_second_high=228_000.0)
    slo = SloResult("p99", 0.02, 1_048_576.0, None)
    shown = "\n".join(text(result(fast, slo=slo)))
    assert "| 250000/s | 223457    | 4000  |" in shown
    assert "1048576/s has a p99" in shown
    assert [Level(callers=1).label, Level(rate=1_048_576).label] == ["1 caller", "1048576/s"]
    assert "e+0" not in shown + html(result(fast, slo=slo)) + "\n".join(compare(result(fast), result(fast)))


def test_the_table_and_its_notes() -> None:
    limited = ClientSide(0.97, 0.0, 0.0, ["it was busy"])
    shown = "\n".join(
        text(
            result(
                point(callers=1),
                point(rate=2000, client=limited, errors={"grpc-status 8": 7}, unanswered=2, steady=False),
                point(
                    callers=4,
                    quantiles={},
                    models=[ModelResult("a", 3, 0.001, 0.002)],
                    batches=Batches(4, 10, {"2": 3, "4": 1}),
                ),
                slo=SloResult("p99", 0.02, 150.0, 160.0),
            )
        )
    )
    for wanted in (
        "| 1 caller  | 1000      | 10    | 2 ms | 5 ms",
        "97%",
        "note: 2000/s: the load generator was the bottleneck: it was busy",
        "note: 2000/s: not steady after 2 s of warm-up",
        "note: 2000/s: only 1000 a second were answered",
        "note: 2000/s: 7 times grpc-status 8",
        "note: 2000/s: 2 requests were never answered",
        "2.50       | ≤2: 3, ≤4: 1",
        "150/s has a p99 of at most 20 ms; 160/s does not",
    ):
        assert wanted in shown, shown


@pytest.mark.parametrize(
    "points",
    [
        [point(callers=1), point(callers=4, batches=Batches(4, 10, {"2": 3, "32": 1}))],
        [point(rate=100.0), point(rate=200.0, quantiles={}, curve=[])],
        [point(callers=1, quantiles={}, curve=[], per_second=0.0)],
    ],
)
def test_the_page_is_whole_and_needs_nothing_else(points: list[Point]) -> None:
    page = html(result(*points, slo=SloResult("p99", 0.02, None, 5.0)))
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert "m&lt;1&gt;" in page
    assert "<1>" not in page
    charts = sum(bool(kind) for kind in ([p for p in points if p.quantiles], [p for p in points if p.curve]))
    assert tags.count.get("svg", 0) == charts + any(p.batches for p in points)
    assert "nan" not in page.lower()
    for scheme in ("prefers-color-scheme: dark", "color-scheme: light dark"):
        assert scheme in page


def test_a_difference_counts_where_the_intervals_do_not_meet(tmp_path: Path) -> None:
    one, other = tmp_path / "one.json", tmp_path / "other.json"
    one.write_bytes(msgspec.json.encode(result(point(callers=1), point(callers=4), point(callers=8))))
    other.write_bytes(
        msgspec.json.encode(result(point(callers=1, scale=0.5), point(callers=4, scale=1.01), point(rate=3)))
    )
    first, second = read_result(one), read_result(other)
    shown = "\n".join(compare(first, second))
    how = "oip (unary), up to 8 connections of 1 process; random, 2026-01-01T00:00:00+00:00"
    assert shown.startswith(f"A: m<1> on here:1, {how}\nB: m<1> on here:1, {how}\n")
    assert "| 1 caller  | answers/s | 1000    | 2000    | 2.000 | faster   |" in shown
    assert "| 1 caller  | p99       | 9.9 ms  | 4.95 ms | 0.500 | faster   |" in shown
    assert "| 4 callers | answers/s | 1000    | 990.1   | 0.990 | the same |" in shown
    assert "8 callers" not in shown
    assert "slower" in "\n".join(compare(second, first))
    with pytest.raises(MeasureError, match="no load in common"):
        list(compare(first, result(point(rate=3))))


def test_a_file_that_is_no_bench(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    with pytest.raises(MeasureError, match="no such file"):
        read_result(file)
    file.write_text("[]")
    with pytest.raises(MeasureError, match="not the JSON of a bench"):
        read_result(file)
    file.write_bytes(msgspec.json.encode(msgspec.structs.replace(result(), format=99)))
    with pytest.raises(MeasureError, match="format 99"):
        read_result(file)


def test_batches_from_the_metrics() -> None:
    page = """# TYPE predictd_batch_rows histogram
predictd_batch_rows_bucket{model="a",version="1",le="1"} %d
predictd_batch_rows_bucket{model="a",version="1",le="2"} %d
predictd_batch_rows_bucket{model="a",version="1",le="+Inf"} %d
predictd_batch_rows_sum{model="a",version="1"} %d
predictd_batch_rows_count{model="a",version="1"} %d
"""
    found = between(read(page % (1, 2, 2, 3, 2)), read(page % (4, 8, 9, 20, 9)))
    assert found == Batches(7, 17, {"1": 3, "2": 3, "inf": 1})
    assert between(read(""), read("")) == Batches(0, 0, {})


def test_metrics_are_read_without_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy.invalid:1")
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        address = f"127.0.0.1:{nobody.getsockname()[1]}"
    with pytest.raises(MeasureError, match=rf"http://{address}/metrics: Connection refused$"):
        scrape(address)


@pytest.mark.parametrize("answer", [b"", b"\x00\x00\x1e\x04\x00\x00\x00\x00\x00"])
def test_a_server_of_another_protocol_is_told_in_words(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(MeasureError, match=r"speaks no HTTP/1\.1 without TLS$"):
            scrape(address)
        thread.join()


def test_results_are_printed_also_where_the_page_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measured = result()
    monkeypatch.setattr(bench_network, "_measure", lambda *_: measured)
    wish = bench_network.NetworkWish(
        target=measured.target,
        api=measured.api,
        streams=False,
        models=("m",),
        callers=(1,),
        rates=(),
        arrivals="poisson",
        slo=None,
        connections=1,
        processes=1,
        rows=1,
        deadline_ns=0,
        http="",
        shapes={},
        ranges={},
        inputs=None,
        time_ns=None,
        warm_up_ns=None,
        as_json=True,
        html=tmp_path,
        access=PLAIN,
    )
    with pytest.raises(click.ClickException, match=r": Is a directory"):
        bench_network.bench_network(wish)
    assert msgspec.json.decode(capsys.readouterr().out, type=Result) == measured
    wish = dataclasses.replace(wish, html=tmp_path / "nowhere" / "page.html")
    with pytest.raises(click.ClickException, match=r"page.html: there is no folder .*nowhere$"):
        bench_network.bench_network(wish)
    assert capsys.readouterr().out == ""
