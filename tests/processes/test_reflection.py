"""Server reflection of a real daemon, read by the client of grpcio-reflection in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures import models
from tests.fixtures.daemon import running

# Knows no message of the daemon's: whatever it sends and reads, it was told by reflection.
CLIENT = """
import json, sys
import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

channel = grpc.insecure_channel(sys.argv[1])
database = ProtoReflectionDescriptorDatabase(channel)
pool = DescriptorPool(database)
services = [pool.FindServiceByName(name) for name in database.get_services()]
assert all(method.input_type.fields is not None for service in services for method in service.methods)

def call(service, name, fields):
    method = pool.FindServiceByName(service).methods_by_name[name]
    request = GetMessageClass(method.input_type)(**fields).SerializeToString()
    answer = channel.unary_unary(f"/{service}/{name}")(request, timeout=20)
    return GetMessageClass(method.output_type).FromString(answer)

def status(service, method):
    "Of a call with an empty message, in which only the method's absence is of interest."
    try:
        channel.unary_unary(f"/{service.full_name}/{method.name}")(b"", timeout=20)
    except grpc.RpcError as error:
        return [error.code().name, error.details()]
    return ["OK", ""]

tensor = {"name": "x", "dtype": 12, "shape": [1, 4], "data": b"predictd reflects"[:16]}
predicted = call("predictd.v1.PredictionService", "Predict", {"model": "echo", "inputs": [tensor]})
print(json.dumps({
    "services": {service.full_name: [method.name for method in service.methods] for service in services},
    "statuses": [
        status(service, method)
        for service in services
        for method in service.methods
        if not method.client_streaming and not method.server_streaming
    ],
    "predicted": [[output.name, list(output.shape), output.data.decode()] for output in predicted.outputs],
    "metadata": call("inference.GRPCInferenceService", "ModelMetadata", {"name": "echo"}).inputs[0].datatype,
    "health": call("grpc.health.v1.Health", "Check", {}).status,
}))
"""

SERVICES = {
    "predictd.v1.PredictionService": {"Predict", "PredictStream", "ListModels", "GetModel"},
    "predictd.v1.RoutingService": {"SetLabel", "SetSplit"},
    "predictd.v1.ControlService": {"LoadModel", "UnloadModel", "Reload"},
    "inference.GRPCInferenceService": {
        "ServerLive",
        "ServerReady",
        "ServerMetadata",
        "ModelReady",
        "ModelMetadata",
        "ModelConfig",
        "ModelInfer",
        "ModelStreamInfer",
        "ModelStatistics",
        "RepositoryIndex",
        "LogSettings",
        "RepositoryModelLoad",
        "RepositoryModelUnload",
    },
    "tensorflow.serving.PredictionService": {"Predict", "Classify", "Regress", "GetModelMetadata"},
    "tensorflow.serving.ModelService": {"GetModelStatus", "HandleReloadConfigRequest"},
    "grpc.health.v1.Health": {"Check", "Watch"},
    "grpc.reflection.v1alpha.ServerReflection": {"ServerReflectionInfo"},
}


@pytest.fixture(scope="module")
def reflected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the client learnt."""
    folder: Path = tmp_path_factory.mktemp("reflection")
    with running(models.identity(folder / "echo.onnx"), folder=folder / "run") as daemon:
        client = subprocess.run(
            [sys.executable, "-c", CLIENT, daemon.grpc], check=True, stdout=subprocess.PIPE
        )
    learnt: dict[str, Any] = json.loads(client.stdout)
    return learnt


def test_exactly_the_registered_services_are_listed(reflected: dict[str, Any]) -> None:
    assert {name: set(methods) for name, methods in reflected["services"].items()} == SERVICES


def test_every_method_that_is_described_exists(reflected: dict[str, Any]) -> None:
    assert len(reflected["statuses"]) > 10
    assert ["UNIMPLEMENTED", "Method not found!"] not in reflected["statuses"]


def test_what_is_described_is_enough_to_call(reflected: dict[str, Any]) -> None:
    assert reflected["predicted"] == [["y", [1, 4], "predictd reflect"]]
    assert (reflected["metadata"], reflected["health"]) == ("FP32", 1)
