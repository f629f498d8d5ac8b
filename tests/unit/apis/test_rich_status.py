"""What we write by hand is read by the messages as google/rpc/*.proto declare them."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc import StatusCode

from predictd.server.frontend.rich_status import with_retry_info


@cache
def pool() -> DescriptorPool:
    """google.rpc.Status and RetryInfo, apart from everybody else's."""
    made = DescriptorPool()
    for known in (any_pb2, duration_pb2):
        made.AddSerializedFile(known.DESCRIPTOR.serialized_pb)
    one, many = FieldDescriptorProto.LABEL_OPTIONAL, FieldDescriptorProto.LABEL_REPEATED
    number, text, message = (
        FieldDescriptorProto.TYPE_INT32,
        FieldDescriptorProto.TYPE_STRING,
        FieldDescriptorProto.TYPE_MESSAGE,
    )
    file = FileDescriptorProto(name="rpc.proto", package="google.rpc", syntax="proto3")
    file.dependency.extend(["google/protobuf/any.proto", "google/protobuf/duration.proto"])
    status = file.message_type.add(name="Status")
    status.field.add(name="code", number=1, type=number, label=one)
    status.field.add(name="message", number=2, type=text, label=one)
    status.field.add(name="details", number=3, type=message, type_name=".google.protobuf.Any", label=many)
    info = file.message_type.add(name="RetryInfo")
    info.field.add(
        name="retry_delay", number=1, type=message, type_name=".google.protobuf.Duration", label=one
    )
    made.AddSerializedFile(file.SerializeToString())
    return made


def kind(name: str) -> Any:
    return GetMessageClass(pool().FindMessageTypeByName(f"google.rpc.{name}"))


@pytest.mark.parametrize("text", ["", "full", "ü" * 500])
@pytest.mark.parametrize("seconds", [0.0, 0.0301, 1.0, 12.5])
def test_a_client_finds_code_message_and_delay(text: str, seconds: float) -> None:
    status = kind("Status").FromString(with_retry_info(StatusCode.RESOURCE_EXHAUSTED, text, seconds))
    assert (status.code, status.message) == (8, text)
    (detail,) = status.details
    assert detail.type_url == "type.googleapis.com/google.rpc.RetryInfo"
    info = kind("RetryInfo").FromString(detail.value)
    assert info.retry_delay.ToNanoseconds() == round(seconds * 1e9)
