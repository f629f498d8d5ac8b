"""Triton's log settings and our levels."""

from __future__ import annotations

import pytest

from predictd.protos.oip import grpc_service_pb2 as pb
from predictd.server.errors import InvalidRequestError, UnsupportedError
from predictd.server.frontend.apis.oip_logging import settings_of, wanted_level
from predictd.server.observe.logs import LEVELS


def wanted(**settings: bool | int | str) -> pb.LogSettingsRequest:
    request = pb.LogSettingsRequest()
    for name, value in settings.items():
        kind = {bool: "bool_param", int: "uint32_param", str: "string_param"}[type(value)]
        setattr(request.settings[name], kind, value)
    return request


@pytest.mark.parametrize("level", LEVELS)
def test_what_is_shown_can_be_sent_back_and_changes_nothing(level: str) -> None:
    for present in LEVELS:
        assert wanted_level(wanted(**settings_of(level)).settings, present) == level


@pytest.mark.parametrize(
    ("settings", "present", "level"),
    [
        ({"log_verbose_level": 3}, "warning", "debug"),
        ({"log_verbose_level": 0}, "debug", "info"),
        ({"log_verbose_level": 0}, "error", "error"),
        ({"log_info": False}, "debug", "warning"),
        ({"log_info": False}, "error", "error"),
        ({"log_info": True}, "error", "info"),
        ({"log_info": True}, "debug", "debug"),
        ({"log_warning": False}, "info", "error"),
        ({"log_info": False, "log_warning": True}, "error", "warning"),
        ({"log_error": True, "log_file": "", "log_format": "ISO8601"}, "info", "info"),
    ],
)
def test_the_nearest_level_that_is_as_wanted(
    settings: dict[str, bool | int | str], present: str, level: str
) -> None:
    assert wanted_level(wanted(**settings).settings, present) == level


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"log_error": False}, InvalidRequestError, "no such log level: log_error=false; errors are always"),
        ({"log_info": True, "log_warning": False}, InvalidRequestError, "log_info=true, log_warning=false"),
        ({"log_info": False, "log_verbose_level": 1}, InvalidRequestError, "log_verbose_level=1"),
        ({"log_file": "/tmp/x"}, UnsupportedError, "'log_file' cannot be changed: the log goes to standard"),
        ({"log_format": "default"}, UnsupportedError, "'log_format' cannot be changed"),
        (
            {"log_loud": True},
            InvalidRequestError,
            "unknown log setting 'log_loud'; there are log_file, log_info",
        ),
        ({"log_info": 1}, InvalidRequestError, "'log_info' must be sent as bool_param, not as uint32_param"),
        ({"log_verbose_level": True}, InvalidRequestError, "must be sent as uint32_param, not as bool_param"),
    ],
)
def test_what_cannot_be_is_refused_by_name(
    settings: dict[str, bool | int | str], error: type[Exception], said: str
) -> None:
    with pytest.raises(error) as caught:
        wanted_level(wanted(**settings).settings, "info")
    assert said in str(caught.value)


def test_a_setting_without_a_value_is_refused() -> None:
    request = pb.LogSettingsRequest()
    request.settings["log_info"].SetInParent()
    with pytest.raises(InvalidRequestError, match="not as nothing"):
        wanted_level(request.settings, "info")
