"""LogSettings of Triton's API: the level of the log, read and changed while the daemon runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeAlias

from predictd.protos.oip import grpc_service_pb2 as pb
from predictd.server.errors import InvalidRequestError, UnsupportedError
from predictd.server.frontend.apis.rpc import Context, Handler, parse, unary
from predictd.server.frontend.status import StatusTable
from predictd.server.observe.logs import LEVELS, current_level

if TYPE_CHECKING:
    from predictd.server.frontend.control import Control

Settings: TypeAlias = Mapping[str, pb.LogSettingsRequest.SettingValue]
Value: TypeAlias = "bool | int | str"

# What a setting is sent as.
_TYPES = {
    "log_file": "string_param",
    "log_info": "bool_param",
    "log_warning": "bool_param",
    "log_error": "bool_param",
    "log_verbose_level": "uint32_param",
    "log_format": "string_param",
}
# Cannot be changed; how to say why.
_FIXED = {
    "log_file": "the log goes to standard error",
    "log_format": "its times are in ISO 8601",
}


def methods(
    control: Control, statuses: StatusTable, level: Callable[[], str] = current_level
) -> dict[str, Handler]:
    """The method.

    Args:
        control: Changes the level, in all processes.
        statuses: Of the protocol.
        level: What it is now, in this process.
    """

    async def log_settings(data: bytes, _: Context) -> bytes:
        request = parse(pb.LogSettingsRequest, data)
        known = level()
        if request.settings:
            known = wanted_level(request.settings, known)
            await control.set_log_level(known)
        response = pb.LogSettingsResponse()
        for name, value in settings_of(known).items():
            setattr(response.settings[name], _TYPES[name], value)
        return response.SerializeToString()

    return {"LogSettings": unary(log_settings, statuses)}


def settings_of(level: str) -> dict[str, Value]:
    """What Triton's settings are at a level of ours."""
    rank = LEVELS.index(level)
    return {
        "log_file": "",
        "log_info": rank <= LEVELS.index("info"),
        "log_warning": rank <= LEVELS.index("warning"),
        "log_error": True,
        "log_verbose_level": int(level == "debug"),
        "log_format": "ISO8601",
    }


def wanted_level(settings: Settings, level: str) -> str:
    """The level nearest to the present one at which the settings are as a client wants them.

    Args:
        settings: Those that the client names.
        level: The present one.

    Raises:
        InvalidRequestError: There is no such setting, or no such level.
        UnsupportedError: A setting cannot be changed.
    """
    wanted = {name: _value(name, setting) for name, setting in settings.items()}
    fitting = [known for known in LEVELS if _fits(wanted, settings_of(known))]
    if not fitting:
        said = ", ".join(f"{name}={str(value).lower()}" for name, value in sorted(wanted.items()))
        raise InvalidRequestError(
            f"there is no such log level: {said}; errors are always logged, warnings with what informs, "
            "and all of them with what is verbose"
        )
    return min(fitting, key=lambda known: abs(LEVELS.index(known) - LEVELS.index(level)))


def _value(name: str, setting: pb.LogSettingsRequest.SettingValue) -> Value:
    if name not in _TYPES:
        raise InvalidRequestError(f"unknown log setting {name!r}; there are {', '.join(_TYPES)}")
    choice = setting.WhichOneof("parameter_choice")
    if choice != _TYPES[name]:
        raise InvalidRequestError(
            f"log setting {name!r} must be sent as {_TYPES[name]}, not as {choice or 'nothing'}"
        )
    value: Value = getattr(setting, choice)
    if name in _FIXED and value != settings_of("info")[name]:
        raise UnsupportedError(f"log setting {name!r} cannot be changed: {_FIXED[name]}")
    # Triton knows how verbose to be; here there is one level of it.
    return min(value, 1) if name == "log_verbose_level" and isinstance(value, int) else value


def _fits(wanted: Mapping[str, Value], settings: Mapping[str, Value]) -> bool:
    return all(settings[name] == value for name, value in wanted.items())
