"""Commands as each protocol says them: what reaches the supervisor, and what clients are told of its answers."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from predictd.protos.oip import grpc_service_pb2 as oip_pb
from predictd.protos.tfs import error_codes_pb2 as error_pb
from predictd.protos.tfs import serving_pb2 as tfs_pb
from predictd.protos.v1 import control_pb2 as v1
from predictd.server.control.commands import (
    Command,
    CommandDone,
    ListedModel,
    LoadModel,
    Reload,
    ServeList,
    UnloadModel,
)
from predictd.server.errors import FailedPreconditionError, InvalidRequestError
from predictd.server.frontend.apis import control_v1, oip, tfs
from predictd.server.frontend.control import Control
from tests.unit.apis.test_fake_core import FakeControl, FakeCore, refusal, serving, unary

if TYPE_CHECKING:
    from google.protobuf.message import Message

LOAD, UNLOAD = f"/{oip.SERVICE}/RepositoryModelLoad", f"/{oip.SERVICE}/RepositoryModelUnload"
RELOAD_CONFIG = f"/{tfs.MODEL_SERVICE}/HandleReloadConfigRequest"
STATUSES = ("NOT_FOUND", "INVALID_ARGUMENT", "UNAVAILABLE", "FAILED_PRECONDITION")


def handlers(control: Control) -> tuple[grpc.GenericRpcHandler, ...]:
    core = FakeCore()
    return (
        control_v1.handlers(control),
        oip.handlers(core, control=control),
        *tfs.handlers(core, control=control),
    )


def ask(control: Control, method: str, request: Message) -> bytes:
    async def scenario() -> bytes:
        async with serving(*handlers(control)) as channel:
            return await unary(channel, method)(request.SerializeToString())

    return asyncio.run(scenario())


def refused(control: Control, method: str, request: Message) -> tuple[str, str]:
    async def scenario() -> grpc.aio.AioRpcError:
        async with serving(*handlers(control)) as channel:
            return await refusal(unary(channel, method)(request.SerializeToString()))

    error = asyncio.run(scenario())
    return error.code().name, error.details() or ""


def listing(**model: Any) -> tfs_pb.ReloadConfigRequest:
    models = tfs_pb.ModelConfigList(config=[tfs_pb.ModelConfig(**model)])
    return tfs_pb.ReloadConfigRequest(config=tfs_pb.ModelServerConfig(model_config_list=models))


def text(value: str) -> oip_pb.ModelRepositoryParameter:
    return oip_pb.ModelRepositoryParameter(string_param=value)


CALLS: list[tuple[str, Message, Command]] = [
    (
        f"/{control_v1.SERVICE}/LoadModel",
        v1.LoadModelRequest(model="m", config="{}"),
        LoadModel(seq=1, model="m", config="{}"),
    ),
    (f"/{control_v1.SERVICE}/UnloadModel", v1.UnloadModelRequest(model="m"), UnloadModel(seq=1, model="m")),
    (f"/{control_v1.SERVICE}/Reload", v1.ReloadRequest(), Reload(seq=1)),
    (LOAD, oip_pb.RepositoryModelLoadRequest(model_name="m"), LoadModel(seq=1, model="m")),
    (
        LOAD,
        oip_pb.RepositoryModelLoadRequest(model_name="m", parameters={"config": text("{}")}),
        LoadModel(seq=1, model="m", config="{}"),
    ),
    (
        UNLOAD,
        oip_pb.RepositoryModelUnloadRequest(
            model_name="m", parameters={"unload_dependents": oip_pb.ModelRepositoryParameter(bool_param=True)}
        ),
        UnloadModel(seq=1, model="m"),
    ),
]


@pytest.mark.parametrize(("method", "request_", "command"), CALLS)
def test_a_call_becomes_a_command_and_its_answer_is_empty(
    method: str, request_: Message, command: Command
) -> None:
    control = FakeControl()
    assert ask(control, method, request_) == b""
    assert control.sent == [command]


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize(("method", "request_", "command"), CALLS)
def test_a_failure_has_its_status_in_every_protocol(
    method: str, request_: Message, command: Command, status: str
) -> None:
    control = FakeControl(status=status)
    assert refused(control, method, request_) == (status, "the reason")
    assert control.sent == [command]


def test_metadata_lists_model_control_only_where_it_works() -> None:
    method = f"/{oip.SERVICE}/ServerMetadata"
    answers = [
        oip_pb.ServerMetadataResponse.FromString(
            ask(FakeControl(allowed=allowed), method, oip_pb.ServerMetadataRequest())
        )
        for allowed in (True, False)
    ]
    assert ["model_repository" in answer.extensions for answer in answers] == [True, False]


@pytest.mark.parametrize(
    ("method", "request_", "message"),
    [
        (LOAD, oip_pb.RepositoryModelLoadRequest(), "the request names no model"),
        (UNLOAD, oip_pb.RepositoryModelUnloadRequest(), "the request names no model"),
        (
            LOAD,
            oip_pb.RepositoryModelLoadRequest(
                model_name="m", parameters={"config": text("{}"), "file:1/model.onnx": text("x")}
            ),
            "parameter 'file:1/model.onnx': file override is not enabled",
        ),
        (
            LOAD,
            oip_pb.RepositoryModelLoadRequest(model_name="m", parameters={"priority": text("x")}),
            "unknown parameter 'priority' of a load",
        ),
        (
            LOAD,
            oip_pb.RepositoryModelLoadRequest(
                model_name="m", parameters={"config": oip_pb.ModelRepositoryParameter(int64_param=1)}
            ),
            "parameter 'config' must be sent as string_param, not as int64_param",
        ),
        (
            UNLOAD,
            oip_pb.RepositoryModelUnloadRequest(model_name="m", parameters={"unload_dependents": text("x")}),
            "parameter 'unload_dependents' must be sent as bool_param, not as string_param",
        ),
        (
            LOAD,
            oip_pb.RepositoryModelLoadRequest(model_name="m", parameters={"config": text(" " * 70_000)}),
            "the command has 70033 bytes and may have 65536",
        ),
    ],
)
def test_what_cannot_be_meant_never_reaches_the_supervisor(
    method: str, request_: Message, message: str
) -> None:
    control = FakeControl()
    assert refused(control, method, request_) == ("INVALID_ARGUMENT", message)
    assert control.sent == []


def test_a_named_repository_is_not_supported() -> None:
    request = oip_pb.RepositoryModelLoadRequest(repository_name="r", model_name="m")
    assert refused(FakeControl(), LOAD, request)[0] == "UNIMPLEMENTED"


# TensorFlow Serving ---------------------------------------------------------------------------------------------


def reload_config(control: Control, request: Message) -> tuple[str, str]:
    answer = tfs_pb.ReloadConfigResponse.FromString(ask(control, RELOAD_CONFIG, request))
    return error_pb.Code.Name(answer.status.error_code), answer.status.error_message


def policy(**choice: Any) -> tfs_pb.FileSystemStoragePathSourceConfig.ServableVersionPolicy:
    return tfs_pb.FileSystemStoragePathSourceConfig.ServableVersionPolicy(**choice)


Policy = tfs_pb.FileSystemStoragePathSourceConfig.ServableVersionPolicy


@pytest.mark.parametrize(
    ("given", "config"),
    [
        ({}, None),
        ({"latest": Policy.Latest(num_versions=2)}, {"latest": {"num_versions": 2}}),
        ({"all": Policy.All()}, {"all": {}}),
        # 64-bit numbers are strings in protobuf's JSON.
        ({"specific": Policy.Specific(versions=[3, 1])}, {"specific": {"versions": ["3", "1"]}}),
    ],
)
def test_a_list_of_models_travels_with_its_policies(given: Any, config: Any) -> None:
    control = FakeControl()
    request = listing(
        name="m",
        base_path="/models/m",
        model_platform="tensorflow",
        model_version_policy=policy(**given),
        version_labels={"stable": 1, "canary": 2},
    )
    assert reload_config(control, request) == ("OK", "")
    (command,) = control.sent
    assert isinstance(command, ServeList)
    (model,) = command.models
    assert (model.name, model.base_path, model.labels) == ("m", "/models/m", {"stable": 1, "canary": 2})
    assert (json.loads(model.config)["version_policy"] if model.config else None) == config


@pytest.mark.parametrize("status", STATUSES)
def test_what_is_wrong_with_a_list_stands_inside_the_answer(status: str) -> None:
    assert reload_config(FakeControl(status=status), listing(name="m")) == (status, "the reason")


@pytest.mark.parametrize(
    ("request_", "named"),
    [
        (tfs_pb.ReloadConfigRequest(), "model_config_list"),
        (listing(base_path="/x"), "without a name"),
        (listing(name="m", model_platform="pytorch"), "model_platform"),
        (listing(name="m", logging_config=tfs_pb.LoggingConfig()), "logging_config"),
        (tfs_pb.ReloadConfigRequest(metric_names=["x"]), "metric_names"),
    ],
)
def test_a_list_with_what_predictd_does_not_do_is_refused_by_name(request_: Message, named: str) -> None:
    control = FakeControl()
    code, message = reload_config(control, request_)
    assert code == "INVALID_ARGUMENT"
    assert named in message
    assert control.sent == []


# Waiting --------------------------------------------------------------------------------------------------------


def test_answers_find_the_caller_that_they_are_for() -> None:
    async def scenario() -> None:
        sent: list[Command] = []
        control = Control(sent.append)
        first, second = (asyncio.ensure_future(control.load(name)) for name in "ab")
        gone = asyncio.ensure_future(control.unload("c"))
        # One turn is enough for each task to reach its wait.
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        one, two, three = (command.seq for command in sent)
        # Nobody waits for this one any more.
        control.done(CommandDone(seq=three))
        control.done(CommandDone(seq=two, status="FAILED_PRECONDITION", message="broken"))
        with pytest.raises(FailedPreconditionError, match=r"^broken$"):
            await second
        assert not first.done()
        control.done(CommandDone(seq=one))
        await first

    asyncio.run(scenario())


def test_a_list_that_no_message_holds_is_refused() -> None:
    sent: list[Command] = []
    control = Control(sent.append)
    models = [ListedModel(name=f"m{number}", base_path="/models" * 10) for number in range(1000)]
    with pytest.raises(InvalidRequestError, match="may have 65536"):
        asyncio.run(control.serve(models))
    assert sent == []
