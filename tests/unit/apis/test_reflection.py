from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import grpc.aio
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha import reflection_pb2 as pb

from predictd.server.frontend.apis import health, oip, predictd_v1, reflection
from tests.unit.apis.test_fake_core import FakeCore, channel_to, stream

if TYPE_CHECKING:
    from collections.abc import Sequence

METHOD = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"


def reflect(*requests: pb.ServerReflectionRequest) -> Sequence[pb.ServerReflectionResponse]:
    async def scenario() -> list[pb.ServerReflectionResponse]:
        server = grpc.aio.server()
        core = FakeCore()
        server.add_generic_rpc_handlers((predictd_v1.handlers(core), oip.handlers(core)))
        services = (predictd_v1.SERVICE, oip.SERVICE, health.SERVICE)
        server.add_generic_rpc_handlers((reflection.handlers(services),))
        answers = []
        async with channel_to(server) as channel:
            call = stream(channel, METHOD)
            for request in requests:
                await call.write(request.SerializeToString())
                data = await call.read()
                assert isinstance(data, bytes)
                answers.append(pb.ServerReflectionResponse.FromString(data))
        return answers

    return asyncio.run(scenario())


def test_exactly_the_registered_services_are_listed() -> None:
    (answer,) = reflect(pb.ServerReflectionRequest(list_services=""))
    assert {service.name for service in answer.list_services_response.service} == {
        "predictd.v1.PredictionService",
        "inference.GRPCInferenceService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }


def test_each_service_is_described_with_its_methods() -> None:
    names = (predictd_v1.SERVICE, oip.SERVICE, health.SERVICE)
    answers = reflect(*(pb.ServerReflectionRequest(file_containing_symbol=name) for name in names))
    described = {}
    for answer in answers:
        for data in answer.file_descriptor_response.file_descriptor_proto:
            file = FileDescriptorProto.FromString(data)
            for service in file.service:
                described[f"{file.package}.{service.name}"] = {method.name for method in service.method}
    assert set(described) == set(names)
    assert described[predictd_v1.SERVICE] == {"Predict", "PredictStream", "ListModels", "GetModel"}
    assert "TraceSetting" not in described[oip.SERVICE]
    assert "ModelStreamInfer" in described[oip.SERVICE]


def test_an_unknown_symbol_is_an_error() -> None:
    (answer,) = reflect(pb.ServerReflectionRequest(file_containing_symbol="no.Such"))
    assert answer.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]
