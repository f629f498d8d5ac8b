"""The messages against the numbers that TensorFlow and TensorFlow Serving publish."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from predictd.protos.tfs import error_codes_pb2, example_pb2, serving_pb2, signature_pb2, tensor_pb2

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor

# For each message the fields as TensorFlow's clients know them: number, name, kind. A kind is a scalar's name or the
# full name of a message or enum; "*" marks a list, "{}" a map with its value's kind.
FIELDS = {
    "tensorflow.TensorProto": (
        "1 dtype tensorflow.DataType, 2 tensor_shape tensorflow.TensorShapeProto, 3 version_number int32, "
        "4 tensor_content bytes, 5 float_val *float, 6 double_val *double, 7 int_val *int32, 8 string_val *bytes, "
        "10 int64_val *int64, 11 bool_val *bool, 13 half_val *int32, 16 uint32_val *uint32, 17 uint64_val *uint64"
    ),
    "tensorflow.TensorShapeProto": "2 dim *tensorflow.TensorShapeProto.Dim, 3 unknown_rank bool",
    "tensorflow.TensorShapeProto.Dim": "1 size int64, 2 name string",
    "tensorflow.TensorInfo": (
        "1 name string, 2 dtype tensorflow.DataType, 3 tensor_shape tensorflow.TensorShapeProto"
    ),
    "tensorflow.SignatureDef": (
        "1 inputs {}tensorflow.TensorInfo, 2 outputs {}tensorflow.TensorInfo, 3 method_name string"
    ),
    "tensorflow.BytesList": "1 value *bytes",
    "tensorflow.FloatList": "1 value *float",
    "tensorflow.Int64List": "1 value *int64",
    "tensorflow.Feature": (
        "1 bytes_list tensorflow.BytesList, 2 float_list tensorflow.FloatList, 3 int64_list tensorflow.Int64List"
    ),
    "tensorflow.Features": "1 feature {}tensorflow.Feature",
    "tensorflow.Example": "1 features tensorflow.Features",
    "tensorflow.serving.ModelSpec": (
        "1 name string, 2 version google.protobuf.Int64Value, 3 signature_name string, 4 version_label string"
    ),
    "tensorflow.serving.PredictRequest": (
        "1 model_spec tensorflow.serving.ModelSpec, 2 inputs {}tensorflow.TensorProto, 3 output_filter *string, "
        "5 predict_streamed_options tensorflow.serving.PredictStreamedOptions, 6 client_id bytes, "
        "7 request_options tensorflow.serving.PredictRequest.RequestOptions"
    ),
    "tensorflow.serving.PredictStreamedOptions": (
        "1 request_state tensorflow.serving.PredictStreamedOptions.RequestState, 2 split_dimensions {}int32, "
        "3 return_single_response bool"
    ),
    "tensorflow.serving.PredictResponse": (
        "1 outputs {}tensorflow.TensorProto, 2 model_spec tensorflow.serving.ModelSpec"
    ),
    "tensorflow.serving.ExampleList": "1 examples *tensorflow.Example",
    "tensorflow.serving.ExampleListWithContext": "1 examples *tensorflow.Example, 2 context tensorflow.Example",
    "tensorflow.serving.Input": (
        "1 example_list tensorflow.serving.ExampleList, "
        "2 example_list_with_context tensorflow.serving.ExampleListWithContext"
    ),
    "tensorflow.serving.Class": "1 label string, 2 score float",
    "tensorflow.serving.Classifications": "1 classes *tensorflow.serving.Class",
    "tensorflow.serving.ClassificationResult": "1 classifications *tensorflow.serving.Classifications",
    "tensorflow.serving.ClassificationRequest": (
        "1 model_spec tensorflow.serving.ModelSpec, 2 input tensorflow.serving.Input"
    ),
    "tensorflow.serving.ClassificationResponse": (
        "1 result tensorflow.serving.ClassificationResult, 2 model_spec tensorflow.serving.ModelSpec"
    ),
    "tensorflow.serving.Regression": "1 value float",
    "tensorflow.serving.RegressionResult": "1 regressions *tensorflow.serving.Regression",
    "tensorflow.serving.RegressionRequest": (
        "1 model_spec tensorflow.serving.ModelSpec, 2 input tensorflow.serving.Input"
    ),
    "tensorflow.serving.RegressionResponse": (
        "1 result tensorflow.serving.RegressionResult, 2 model_spec tensorflow.serving.ModelSpec"
    ),
    "tensorflow.serving.SignatureDefMap": "1 signature_def {}tensorflow.SignatureDef",
    "tensorflow.serving.GetModelMetadataRequest": (
        "1 model_spec tensorflow.serving.ModelSpec, 2 metadata_field *string"
    ),
    "tensorflow.serving.GetModelMetadataResponse": (
        "1 model_spec tensorflow.serving.ModelSpec, 2 metadata {}google.protobuf.Any"
    ),
    "tensorflow.serving.StatusProto": "1 error_code tensorflow.error.Code, 2 error_message string",
    "tensorflow.serving.GetModelStatusRequest": "1 model_spec tensorflow.serving.ModelSpec",
    "tensorflow.serving.ModelVersionStatus": (
        "1 version int64, 2 state tensorflow.serving.ModelVersionStatus.State, "
        "3 status tensorflow.serving.StatusProto"
    ),
    "tensorflow.serving.GetModelStatusResponse": (
        "1 model_version_status *tensorflow.serving.ModelVersionStatus"
    ),
    "tensorflow.serving.FileSystemStoragePathSourceConfig": "",
    "tensorflow.serving.FileSystemStoragePathSourceConfig.ServableVersionPolicy": (
        "100 latest tensorflow.serving.FileSystemStoragePathSourceConfig.ServableVersionPolicy.Latest, "
        "101 all tensorflow.serving.FileSystemStoragePathSourceConfig.ServableVersionPolicy.All, "
        "102 specific tensorflow.serving.FileSystemStoragePathSourceConfig.ServableVersionPolicy.Specific"
    ),
    "tensorflow.serving.LoggingConfig": "",
    "tensorflow.serving.ModelConfig": (
        "1 name string, 2 base_path string, 4 model_platform string, "
        "6 logging_config tensorflow.serving.LoggingConfig, 7 model_version_policy "
        "tensorflow.serving.FileSystemStoragePathSourceConfig.ServableVersionPolicy, 8 version_labels {}int64"
    ),
    "tensorflow.serving.ModelConfigList": "1 config *tensorflow.serving.ModelConfig",
    "tensorflow.serving.ModelServerConfig": (
        "1 model_config_list tensorflow.serving.ModelConfigList, 2 custom_model_config google.protobuf.Any"
    ),
    "tensorflow.serving.ReloadConfigRequest": (
        "1 config tensorflow.serving.ModelServerConfig, 2 metric_names *string"
    ),
    "tensorflow.serving.ReloadConfigResponse": "1 status tensorflow.serving.StatusProto",
}
SCALARS = {
    1: "double",
    2: "float",
    3: "int64",
    4: "uint64",
    5: "int32",
    8: "bool",
    9: "string",
    12: "bytes",
    13: "uint32",
}
FILES = (tensor_pb2, signature_pb2, example_pb2, serving_pb2)
MESSAGES: dict[str, Descriptor] = {
    message.full_name: message for file in FILES for message in file.DESCRIPTOR.message_types_by_name.values()
} | {
    nested.full_name: nested
    for nested in (
        tensor_pb2.TensorShapeProto.Dim.DESCRIPTOR,
        serving_pb2.FileSystemStoragePathSourceConfig.ServableVersionPolicy.DESCRIPTOR,
    )
}


def described(message: Descriptor) -> str:
    fields = []
    for field in sorted(message.fields, key=lambda field: field.number):
        target, mark = field, "*" if field.is_repeated else ""
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            target, mark = field.message_type.fields_by_name["value"], "{}"
        composite = target.message_type or target.enum_type
        kind = composite.full_name if composite else SCALARS[target.type]
        fields.append(f"{field.number} {field.name} {mark}{kind}")
    return ", ".join(fields)


def test_there_is_no_other_message() -> None:
    assert set(MESSAGES) == set(FIELDS)


@pytest.mark.parametrize("name", FIELDS)
def test_fields_have_the_numbers_and_types_of_tensorflow(name: str) -> None:
    assert described(MESSAGES[name]) == FIELDS[name]


def test_choices_exclude_each_other() -> None:
    spec = MESSAGES["tensorflow.serving.ModelSpec"].oneofs_by_name["version_choice"]
    assert {field.name for field in spec.fields} == {"version", "version_label"}
    feature = MESSAGES["tensorflow.Feature"].oneofs_by_name["kind"]
    assert {field.name for field in feature.fields} == {"bytes_list", "float_list", "int64_list"}
    given = MESSAGES["tensorflow.serving.Input"].oneofs_by_name["kind"]
    assert {field.name for field in given.fields} == {"example_list", "example_list_with_context"}


def test_enums_have_the_numbers_of_tensorflow() -> None:
    types = "INVALID FLOAT DOUBLE INT32 UINT8 INT16 INT8 STRING COMPLEX64 INT64 BOOL QINT8 QUINT8 QINT32 BFLOAT16 "
    types += "QINT16 QUINT16 UINT16 COMPLEX128 HALF RESOURCE VARIANT UINT32 UINT64 FLOAT8_E5M2 FLOAT8_E4M3FN "
    types += "FLOAT8_E4M3FNUZ FLOAT8_E4M3B11FNUZ FLOAT8_E5M2FNUZ INT4 UINT4 INT2 UINT2"
    assert tensor_pb2.DataType.items() == [(f"DT_{name}", at) for at, name in enumerate(types.split())]
    codes = (
        "OK CANCELLED UNKNOWN INVALID_ARGUMENT DEADLINE_EXCEEDED NOT_FOUND ALREADY_EXISTS PERMISSION_DENIED "
    )
    codes += "RESOURCE_EXHAUSTED FAILED_PRECONDITION ABORTED OUT_OF_RANGE UNIMPLEMENTED INTERNAL UNAVAILABLE "
    codes += "DATA_LOSS UNAUTHENTICATED"
    assert error_codes_pb2.Code.items() == [(name, at) for at, name in enumerate(codes.split())]
    assert serving_pb2.ModelVersionStatus.State.items() == [
        ("UNKNOWN", 0),
        ("START", 10),
        ("LOADING", 20),
        ("AVAILABLE", 30),
        ("UNLOADING", 40),
        ("END", 50),
    ]


def test_services_list_what_is_served() -> None:
    services = serving_pb2.DESCRIPTOR.services_by_name
    methods = {service.full_name: sorted(service.methods_by_name) for service in services.values()}
    assert methods == {
        "tensorflow.serving.PredictionService": ["Classify", "GetModelMetadata", "Predict", "Regress"],
        "tensorflow.serving.ModelService": ["GetModelStatus", "HandleReloadConfigRequest"],
    }
