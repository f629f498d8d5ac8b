"""Our steps around Magika's model give what Magika itself gives."""

from __future__ import annotations

import io
import json
import os
import random
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from magika import Magika
from magika.types.seekable import Seekable

from predictd.protos.v1 import predictd_pb2 as v1
from predictd.server.cli import magika_package
from predictd.server.cli.identify import identify
from predictd.server.cli.magika_features import INPUT, OUTPUT, Detector, Verdict, installed
from predictd.server.cli.magika_package import MODEL, MagikaError, model_file
from tests.fixtures.prediction_service import FakeService, make_model, serving

if TYPE_CHECKING:
    from collections.abc import Callable


def png() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    pixels = b"".join(b"\0" + bytes((x * y) % 256 for x in range(96)) for y in range(32))
    header = struct.pack(">IIBBBBB", 32, 32, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(pixels))
        + chunk(b"IEND", b"")
    )


def pdf() -> bytes:
    objects = (b"<< /Type /Catalog /Pages 2 0 R >>", b"<< /Type /Pages /Kids [] /Count 0 >>")
    body = b"".join(b"%d 0 obj\n%b\nendobj\n" % each for each in enumerate(objects, 1))
    return b"%PDF-1.4\n" + body + b"xref\n0 3\ntrailer\n<< /Size 3 /Root 1 0 R >>\nstartxref\n9\n%%EOF\n"


CONTENTS: dict[str, Callable[[], bytes]] = {
    "python": Path(__file__).read_bytes,
    "png": png,
    "pdf": pdf,
    "elf": Path("/bin/ls").read_bytes,
    "json": lambda: json.dumps({"name": "predictd", "ports": [8001, 8002], "deep": {"a": None}}).encode(),
    "prose": lambda: b"It was a dark and stormy night; the rain fell in torrents. " * 3,
    "noise": lambda: random.Random(1).randbytes(5000),
    "empty": bytes,
    "small text": lambda: b"hi",
    "small binary": lambda: b"\xff\xfe",
    "whitespace": lambda: b" \n" * 6000,
    "little in whitespace": lambda: b"   \n" * 500 + b"abc" + b"\t" * 500,
}


@pytest.fixture(scope="module")
def magika() -> Magika:
    return Magika()


@pytest.fixture(scope="module")
def run_model() -> Callable[[np.ndarray], np.ndarray]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model_file(), options, providers=["CPUExecutionProvider"])
    return lambda features: session.run([OUTPUT], {INPUT: features})[0]


@pytest.fixture(scope="module")
def detector() -> Detector:
    return installed()


def judge(detector: Detector, run_model: Callable[[np.ndarray], np.ndarray], content: bytes) -> Verdict:
    features = detector.features(io.BytesIO(content))
    return features if isinstance(features, Verdict) else detector.verdict(run_model(features)[0])


@pytest.mark.parametrize("kind", CONTENTS)
def test_a_file_is_what_magika_says(
    magika: Magika, detector: Detector, run_model: Any, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "file"
    path.write_bytes(CONTENTS[kind]())
    verdict = judge(detector, run_model, path.read_bytes())
    expected = magika.identify_path(path)
    assert verdict.label == str(expected.output.label)
    assert verdict.score == pytest.approx(expected.score, abs=1e-5)


@pytest.mark.parametrize("kind", ["python", "png", "pdf", "elf", "json"])
def test_kinds_are_told_apart(detector: Detector, run_model: Any, kind: str) -> None:
    assert judge(detector, run_model, CONTENTS[kind]()).label == kind


WHITESPACE_AND_BYTES = st.lists(
    st.one_of(
        st.binary(max_size=20),
        st.builds(lambda count: b" \n\t\v\f\r" * count, st.integers(0, 900)),
        st.builds(lambda count: b"payload\0" * count, st.integers(0, 700)),
    ),
    max_size=5,
).map(b"".join)


@given(WHITESPACE_AND_BYTES)
def test_features_are_those_of_magika(content: bytes) -> None:
    detector = installed()
    features = detector.features(io.BytesIO(content))
    if isinstance(features, Verdict):
        assert len(content[: detector.block_size].lstrip()) < detector.min_size
        return
    expected = Magika._extract_features_from_seekable(
        Seekable(io.BytesIO(content)),
        beg_size=detector.beg_size,
        mid_size=0,
        end_size=detector.end_size,
        padding_token=detector.padding,
        block_size=detector.block_size,
        use_inputs_at_offsets=False,
    )
    assert features.dtype == np.int32
    assert features.tolist() == [expected.beg + expected.end]


@settings(max_examples=300)
@given(index=st.integers(0, 213), score=st.floats(0, 1, width=32))
def test_thresholds_are_those_of_magika(magika: Magika, index: int, score: float) -> None:
    detector = installed()
    scores = np.full(len(detector.labels), -1, np.float32)
    scores[index] = score
    label, _ = magika._get_output_label_from_dl_label_and_score(
        magika._model_config.target_labels_space[index], score
    )
    assert detector.verdict(scores) == Verdict(str(label), score, detector.labels[index])


def test_the_model_takes_and_gives_what_we_think(detector: Detector) -> None:
    session = ort.InferenceSession(model_file(), providers=["CPUExecutionProvider"])
    (taken,), (given_,) = session.get_inputs(), session.get_outputs()
    assert (taken.name, taken.type, taken.shape[1]) == (
        INPUT,
        "tensor(int32)",
        detector.beg_size + detector.end_size,
    )
    assert (given_.name, given_.shape[1]) == (OUTPUT, len(detector.labels))


def service(detector: Detector, label: str, score: float) -> FakeService:
    """A daemon whose model is as sure of a label as we say."""
    scores = np.zeros((1, len(detector.labels)), np.float32)
    scores[0, list(detector.labels).index(label)] = score
    answer = v1.PredictResponse(
        model=MODEL,
        version=1,
        outputs=[v1.Tensor(name=OUTPUT, dtype=v1.FP32, shape=scores.shape, data=scores.tobytes())],
        timing=v1.Timing(queue_ns=1000, compute_ns=2_000_000, batch_rows=1),
    )
    return FakeService(make_model(MODEL), answer=lambda _: answer)


def test_identify_asks_the_daemon_and_prints_its_answer(detector: Detector) -> None:
    fake = service(detector, "python", 0.99)
    with serving(fake) as target:
        result = CliRunner().invoke(identify, [__file__, "--grpc", target])
    assert result.output == f"{__file__}: python, score 0.990, queue 1 us, compute 2 ms\n"
    (request,) = fake.requests
    assert (request.model, request.inputs[0].name, request.inputs[0].dtype) == (MODEL, INPUT, v1.INT32)
    assert list(request.inputs[0].shape) == [1, detector.beg_size + detector.end_size]


def test_identify_does_not_believe_a_low_score(detector: Detector) -> None:
    with serving(service(detector, "pascal", 0.6)) as target:
        result = CliRunner().invoke(identify, [__file__, "--grpc", target])
    assert ": txt, since the guess pascal scores only 0.600, queue" in result.output


def test_identify_knows_short_files_without_a_daemon(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = CliRunner().invoke(identify, [f"{tmp_path}/file", "--grpc", "127.0.0.1:1"])
    assert result.output == f"{tmp_path}/file: empty (too short to ask the model)\n"


@pytest.mark.parametrize(("name", "reason"), [("none", "No such file or directory"), ("", "Is a directory")])
def test_identify_names_a_file_that_it_cannot_read(tmp_path: Path, name: str, reason: str) -> None:
    path = tmp_path / name
    result = CliRunner().invoke(identify, [str(path)])
    assert (result.exit_code, result.stderr) == (1, f"Error: {path}: {reason}\n")


def test_identify_says_how_to_start_the_demo() -> None:
    with serving(FakeService()) as target:
        result = CliRunner().invoke(identify, [__file__, "--grpc", target])
        assert result.stderr == (
            f"Error: the daemon at {target} does not serve the model 'magika'; predictd demo does\n"
        )
    result = CliRunner().invoke(identify, [__file__, "--grpc", target])
    assert result.exit_code == 1
    assert result.stderr.endswith("start one with: predictd demo\n")


def test_without_magika_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    result = CliRunner().invoke(identify, [__file__])
    assert (result.exit_code, result.stderr) == (
        1,
        "Error: the demo needs Magika's model: pip install 'predictd[demo]'\n",
    )


@pytest.mark.parametrize("config", ["{", "{}", '{"mid_size": 0, "use_inputs_at_offsets": true}'])
def test_a_magika_of_another_make_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, config: str
) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config/content_types_kb.min.json").write_text("{}")
    (tmp_path / "models/new").mkdir(parents=True)
    (tmp_path / "models/new/model.onnx").touch()
    (tmp_path / "models/new/config.min.json").write_text(config)
    monkeypatch.setattr("predictd.server.cli.magika_features.package", lambda: tmp_path)
    monkeypatch.setattr(magika_package, "package", lambda: tmp_path)
    with pytest.raises(MagikaError, match="is not a Magika that this predictd knows"):
        installed()


def test_a_magika_without_a_model_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(magika_package, "package", lambda: tmp_path)
    with pytest.raises(MagikaError, match=os.fspath(tmp_path)):
        model_file()
