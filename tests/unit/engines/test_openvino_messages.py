import pytest

from predictd.engines.api import EngineError, InvalidInputError

messages = pytest.importorskip("predictd.engines.openvino.messages", reason="openvino is not installed")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            (
                "Exception from src/inference/src/cpp/core.cpp:132:\n"
                "Exception from src/inference/src/dev/plugin.cpp:59:\n"
                "Check 'false' failed at src/frontends/common_translators/src/unconverted_ops_report.cpp:151:\n"
                "FrontEnd API failed with OpConversionFailure:\nModel wasn't fully converted.\nSummary:\n"
                "-- No conversion rule found for operations: Frobnicate-17\n\n\n"
            ),
            "Model wasn't fully converted. No conversion rule found for operations: Frobnicate-17",
        ),
        (
            (
                "Exception from src/inference/src/cpp/infer_request.cpp:245:\n"
                "Caught exception: Exception from src/plugins/intel_cpu/src/node.cpp:794:\n"
                "[CPU] Add node with name 'OUTPUT0' "
                "Check 'input_shape[j] == 1' failed at src/plugins/intel_cpu/src/custom/eltwise.cpp:52:\n"
                "Eltwise shape infer input shapes dim index: 0 mismatch\n\n\n"
            ),
            "[CPU] Add node with name 'OUTPUT0': Eltwise shape infer input shapes dim index: 0 mismatch",
        ),
        (
            "Exception from src/plugins/config.cpp:505:\nNotFound: Unsupported property NOPE.\n",
            "Unsupported property NOPE",
        ),
        ("Exception from src/plugins/config.cpp:505:\n", "no reason given"),
        ("", "no reason given"),
    ],
)
def test_one_line(text: str, line: str) -> None:
    assert messages.one_line(text) == line


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Eltwise shape infer input shapes dim index: 0 mismatch", InvalidInputError),
        ("Dimensions are incompatible", InvalidInputError),
        ("std::bad_alloc", EngineError),
    ],
)
def test_who_is_to_blame(text: str, kind: type[EngineError]) -> None:
    assert type(messages.run_error(RuntimeError(text))) is kind
