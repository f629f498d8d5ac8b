"""Against Triton's own client. It runs in a process of its own: its symbols are the same as ours."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from typing import Any, Protocol

import grpc.aio
import pytest

from predictd.protos.oip import grpc_service_pb2, model_config_pb2
from predictd.server.frontend.apis import oip
from tests.unit.apis.test_fake_core import FakeCore

TRITON_DESCRIPTORS = """
import sys
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from tritonclient.grpc import model_config_pb2, service_pb2
files = FileDescriptorSet()
for module in (model_config_pb2, service_pb2):
    module.DESCRIPTOR.CopyToProto(files.file.add())
sys.stdout.buffer.write(files.SerializeToString())
"""

TRITON_SESSION = """
import json, queue, sys
import ml_dtypes
import numpy as np
import tritonclient.grpc as triton

client = triton.InferenceServerClient(sys.argv[1])
out = {
    "live": client.is_server_live(),
    "ready": client.is_server_ready(),
    "model_ready": [client.is_model_ready("echo"), client.is_model_ready("broken")],
    "server": client.get_server_metadata().name,
    "metadata": client.get_model_metadata("echo", as_json=True),
    "config": client.get_model_config("echo", as_json=True),
    "statistics": client.get_inference_statistics("echo", "1", as_json=True),
    "index": len(client.get_model_repository_index().models),
}

def tensor(array, dtype):
    value = triton.InferInput("x", list(array.shape), dtype)
    value.set_data_from_numpy(array)
    return value

same = {}
for dtype, array in {
    "FP32": np.float32([[1, 2, 3]]), "FP16": np.float16([0.5]), "BF16": np.array([1.5], ml_dtypes.bfloat16),
    "INT64": np.int64([[-1], [2]]), "BOOL": np.array([True, False]), "BYTES": np.array([b"", b"ab"], object),
    "UINT8": np.zeros((0, 2), np.uint8),
}.items():
    result = client.infer("echo", [tensor(array, dtype)], request_id="i", timeout=5_000_000, priority=1)
    back = result.as_numpy("x")
    same[dtype] = bool(back.shape == array.shape and (back == array).all())
out["same"] = same

answers = queue.Queue()
client.start_stream(lambda result, error: answers.put((result, error)))
for i in range(3):
    client.async_stream_infer("echo", [tensor(np.float32([i]), "FP32")], request_id=str(i))
client.async_stream_infer("echo", [tensor(np.float32([0]), "FP32")], request_id="bad")
client.async_stream_infer(
    "echo", [tensor(np.float32([3]), "FP32")], request_id="3", enable_empty_final_response=True)
stream = []
for _ in range(5):
    result, error = answers.get(timeout=20)
    stream.append(error.message() if error else [result.get_response().id, float(result.as_numpy("x")[0])])
client.stop_stream()
out["stream"] = stream

try:
    client.infer("echo", [tensor(np.float32([1]), "FP32")], sequence_id=5, sequence_start=True)
except triton.InferenceServerException as error:
    out["sequence"] = [error.status(), error.message()]
print(json.dumps(out))
"""


class _Described(Protocol):
    """What files and messages have in common."""

    enum_type: Any


def test_names_numbers_and_types_are_those_of_triton() -> None:
    from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

    data = subprocess.run([sys.executable, "-c", TRITON_DESCRIPTORS], check=True, capture_output=True).stdout
    theirs = _facts(FileDescriptorSet.FromString(data).file)
    files = [FileDescriptorProto(), FileDescriptorProto()]
    for file, module in zip(files, (model_config_pb2, grpc_service_pb2), strict=True):
        module.DESCRIPTOR.CopyToProto(file)
    ours = _facts(files)
    assert len(ours) > 150
    assert {name: fact for name, fact in ours.items() if theirs.get(name) != fact} == {}


def test_our_files_have_names_of_their_own() -> None:
    for module in (model_config_pb2, grpc_service_pb2):
        assert module.DESCRIPTOR.name.startswith("predictd/protos/oip/")


@pytest.fixture(scope="module")
def session() -> dict[str, Any]:
    """What Triton's client saw."""

    async def scenario() -> bytes:
        core = FakeCore()
        core.failures["bad"] = ZeroDivisionError("inside")
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((oip.handlers(core),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            client = await asyncio.create_subprocess_exec(
                sys.executable, "-c", TRITON_SESSION, f"127.0.0.1:{port}", stdout=subprocess.PIPE
            )
            output, _ = await client.communicate()
        finally:
            await server.stop(None)
        assert client.returncode == 0
        return output

    result: dict[str, Any] = json.loads(asyncio.run(scenario()))
    return result


def test_triton_client_reads_health_and_metadata(session: dict[str, Any]) -> None:
    assert (session["live"], session["ready"], session["server"]) == (True, True, "predictd")
    assert session["model_ready"] == [True, False]
    assert session["metadata"]["inputs"][0] == {"name": "x", "datatype": "FP32", "shape": ["-1", "3"]}
    assert session["config"]["config"]["max_batch_size"] == 32
    assert session["config"]["config"]["dynamic_batching"] == {"max_queue_delay_microseconds": "1500"}
    assert session["statistics"]["model_stats"][0]["inference_stats"]["success"] == {"count": "8", "ns": "80"}
    assert session["index"] == 5


def test_triton_client_gets_its_tensors_back(session: dict[str, Any]) -> None:
    assert session["same"] == dict.fromkeys(("FP32", "FP16", "BF16", "INT64", "BOOL", "BYTES", "UINT8"), True)


def test_triton_client_streams_in_order_past_an_error(session: dict[str, Any]) -> None:
    *before, bad, after = session["stream"]
    assert before == [["0", 0.0], ["1", 1.0], ["2", 2.0]]
    assert bad.startswith("internal error ")
    assert after == ["3", 3.0]


def test_triton_client_is_refused_a_sequence(session: dict[str, Any]) -> None:
    status, message = session["sequence"]
    assert status == "StatusCode.UNIMPLEMENTED"
    assert "sequence_" in message


def _facts(files: Any) -> dict[str, Any]:
    """Every name that a file defines, with what must agree on both sides of the wire."""
    facts: dict[str, Any] = {}
    for file in files:
        for message in file.message_type:
            _message_facts(message, f"{file.package}.{message.name}", facts)
        _enum_facts(file, file.package, facts)
        for service in file.service:
            for method in service.method:
                facts[f"{file.package}.{service.name}/{method.name}"] = (
                    method.input_type,
                    method.output_type,
                    method.client_streaming,
                    method.server_streaming,
                )
    return facts


def _message_facts(message: Any, name: str, facts: dict[str, Any]) -> None:
    facts[name] = message.options.map_entry
    for field in message.field:
        oneof = message.oneof_decl[field.oneof_index].name if field.HasField("oneof_index") else None
        facts[f"{name}.{field.name}"] = (field.number, field.type, field.label, field.type_name, oneof)
    for nested in message.nested_type:
        _message_facts(nested, f"{name}.{nested.name}", facts)
    _enum_facts(message, name, facts)


def _enum_facts(scope: _Described, name: str, facts: dict[str, Any]) -> None:
    for enum in scope.enum_type:
        for value in enum.value:
            facts[f"{name}.{enum.name}.{value.name}"] = value.number
