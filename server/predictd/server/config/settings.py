"""The daemon's settings: one declaration for flag, environment variable, predictd.toml key, default, help.

`Settings` is that declaration. An option's key is `max_delay` in predictd.toml, `--max-delay` on the command
line and `PREDICTD_MAX_DELAY` in the environment; its attribute carries the unit besides (`max_delay_ns`). A
flag beats the environment, the environment beats the file, the file beats the default.
"""

from __future__ import annotations

import sys
import tomllib
from dataclasses import dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from predictd.engines.traits import BUILT_IN
from predictd.server.config.connections import ConnectionRules
from predictd.server.config.errors import ConfigError
from predictd.server.config.request_log import RequestLogRule, parse_request_log
from predictd.server.config.units import (
    Address,
    Kind,
    auto,
    boolean,
    choice,
    duration,
    format_duration,
    integer,
    many_paths,
    names,
    optional_path,
    parse_address,
    path_or,
    size,
    suggestion,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

CONFIG_FILE = "predictd.toml"
DEFAULT = "default"

_SECOND = 10**9
_HOUR = 3600 * _SECOND
_MIB = 2**20
_INT32 = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Option:
    """One option as it is declared.

    Attributes:
        field: Attribute of Settings.
        key: Key of predictd.toml; flag and variable follow from it.
        kind: How values are read and written.
        help: One sentence without the default.
        default: Value when nobody sets it.
        in_file: May stand in predictd.toml.
    """

    field: str
    key: str
    kind: Kind[Any]
    help: str
    default: Any
    in_file: bool

    @property
    def flag(self) -> str:
        """The command line's spelling."""
        return "PATH" if self.field == "paths" else "--" + self.key.replace("_", "-")

    @property
    def variable(self) -> str:
        """The environment variable."""
        return f"PREDICTD_{self.key.upper()}"

    @property
    def default_text(self) -> str:
        """The default as one would write it."""
        return self.kind.write(self.default)


def _option(kind: Kind[Any], help_: str, *, key: str = "", in_file: bool = True) -> dict[str, Any]:
    return {"kind": kind, "help": help_, "key": key, "in_file": in_file}


# What a model.toml may say, too.
COUNT = integer(1, 1024)
ROWS = integer(1, _INT32)
DELAY = duration(0, 60 * _SECOND)
RUN_TIMEOUT = duration(_SECOND, 24 * _HOUR)
QUEUE_SIZE = integer(1, 2**20)
QUEUE_BYTES = size(0, 2**50)
DEADLINE = duration(0, 24 * _HOUR)
_CONNECTION_TIME = duration(0, 7 * 24 * _HOUR)
ALLOCATOR = choice("glibc", "jemalloc", "tcmalloc")
WHILE_BUILDING = choice("none", "onnxruntime")

_REQUEST_LOG: Kind[RequestLogRule] = Kind(
    "FRACTION|N/s|off",
    'a fraction, a rate such as "5/s", or "off"',
    (str, int, float),
    parse_request_log,
    str,
)
_ADDRESS: Kind[Address] = Kind("HOST:PORT", 'a string "HOST:PORT"', (str,), parse_address, str)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that the daemon can be told. What an attribute means stands in its help."""

    paths: tuple[Path, ...] = field(
        default=(),
        metadata=_option(many_paths(), "Model files, model folders or model repositories to serve."),
    )
    config: Path | None = field(
        default=None,
        metadata=_option(
            optional_path(),
            f"Read settings from this file; without it ./{CONFIG_FILE} is read if it exists.",
            in_file=False,
        ),
    )
    grpc: Address = field(
        default=Address("127.0.0.1", 8001),
        metadata=_option(_ADDRESS, "Where gRPC listens. Port 0 takes a free port."),
    )
    unix: Path | None = field(
        default=None,
        metadata=_option(
            optional_path(), "Let gRPC also listen on this unix socket; front end 0 alone serves it."
        ),
    )
    http: Address = field(
        default=Address("127.0.0.1", 8002),
        metadata=_option(
            _ADDRESS,
            "Where the status page, /metrics, /healthz and /readyz listen. Port 0 takes a free port.",
        ),
    )
    frontends: int | None = field(
        default=None,
        metadata=_option(auto(integer(1, 256)), "Processes that speak gRPC; auto follows the CPUs at hand."),
    )
    instances: int | None = field(
        default=None,
        metadata=_option(
            auto(COUNT),
            "Worker processes of each pool; auto is one on each NUMA node, whose threads use its cores.",
        ),
    )
    threads: int | None = field(
        default=None,
        metadata=_option(auto(COUNT), "Threads of one run; auto follows the CPUs at hand."),
    )
    engine: str = field(
        default="auto",
        metadata=_option(
            choice("auto", *BUILT_IN),
            "Loads the models that say nothing of an engine, as far as it serves files of their kind; auto is the "
            "usual engine of each kind.",
        ),
    )
    while_building: str = field(
        default="none",
        metadata=_option(
            WHILE_BUILDING,
            "Serves a model while its own engine builds what it runs, such as a TensorRT plan of an ONNX file.",
        ),
    )
    max_batch_size: int = field(
        default=32,
        metadata=_option(
            ROWS,
            "Rows of several requests merged into one run at most; fewer where more turn out to save nothing.",
        ),
    )
    max_delay_ns: int = field(
        default=0,
        metadata=_option(DELAY, "How long a batch may wait to fill; 0s never waits.", key="max_delay"),
    )
    max_queue_size: int = field(
        default=1024,
        metadata=_option(QUEUE_SIZE, "Requests of a model that may wait; more are refused."),
    )
    max_queue_bytes: int = field(
        default=0,
        metadata=_option(
            QUEUE_BYTES,
            "Bytes of requests of a model that may wait in a front end; more are refused. 0 leaves it to arena_limit.",
        ),
    )
    max_concurrent_per_client: int = field(
        default=0,
        metadata=_option(
            integer(0, 2**20),
            "Requests that a client, by its address, may have in each front end at once; more are refused. 0 is no "
            "limit.",
        ),
    )
    default_deadline_ns: int = field(
        default=0,
        metadata=_option(
            DEADLINE,
            "When a request is given up for which the client sets no deadline; 0s never.",
            key="default_deadline",
        ),
    )
    max_request_rows: int = field(
        default=4096,
        metadata=_option(ROWS, "A request with more rows is refused."),
    )
    max_message_bytes: int = field(
        default=256 * _MIB,
        metadata=_option(size(1024, _INT32), "Largest gRPC message taken or given.", key="max_message_size"),
    )
    max_connection_age_ns: int = field(
        default=1800 * _SECOND,
        metadata=_option(
            _CONNECTION_TIME,
            "When a client is asked to go on with a new connection, give or take a tenth; 0s never.",
            key="max_connection_age",
        ),
    )
    max_connection_age_grace_ns: int = field(
        default=0,
        metadata=_option(
            _CONNECTION_TIME,
            "How long calls and streams of a connection that is past its age may go on before it is cut; 0s is as long "
            "as they take.",
            key="max_connection_age_grace",
        ),
    )
    max_connection_idle_ns: int = field(
        default=0,
        metadata=_option(
            _CONNECTION_TIME,
            "How long a connection without calls is kept; 0s until it is past its age.",
            key="max_connection_idle",
        ),
    )
    max_concurrent_streams: int = field(
        default=10_000,
        metadata=_option(
            integer(1, _INT32), "Calls of one connection at once; its client holds back what is more."
        ),
    )
    handshake_timeout_ns: int = field(
        default=20 * _SECOND,
        metadata=_option(
            duration(_SECOND, _HOUR),
            "A client that connects and does not begin to speak HTTP/2 for so long is cut off.",
            key="handshake_timeout",
        ),
    )
    keepalive_time_ns: int = field(
        default=60 * _SECOND,
        metadata=_option(
            _CONNECTION_TIME,
            "Silence of a client after which it is asked whether it is still there; 0s never asks.",
            key="keepalive_time",
        ),
    )
    keepalive_timeout_ns: int = field(
        default=20 * _SECOND,
        metadata=_option(
            duration(_SECOND // 10, _HOUR),
            "A client that does not answer that for so long is cut off.",
            key="keepalive_timeout",
        ),
    )
    min_ping_interval_ns: int = field(
        default=10 * _SECOND,
        metadata=_option(
            duration(0, _HOUR),
            "A client may ask whether we are still there so often; more often is a strike.",
            key="min_ping_interval",
        ),
    )
    max_ping_strikes: int = field(
        default=2,
        metadata=_option(
            integer(0, 1000), "A client with more strikes is sent away with ENHANCE_YOUR_CALM; 0 never is."
        ),
    )
    max_response_bytes: int = field(
        default=0,
        metadata=_option(
            size(0, _INT32),
            "Largest answer to one request, counted in bytes of its outputs. 0 leaves it to max_message_size.",
            key="max_response_size",
        ),
    )
    tfs_tensor_content: bool = field(
        default=False,
        metadata=_option(
            boolean(), "Answer TensorFlow Serving clients in tensor_content, not in lists of values."
        ),
    )
    tfs_unready_labels: bool = field(
        default=False,
        metadata=_option(
            boolean(), "TensorFlow Serving clients may give labels not in use to versions that are not ready."
        ),
    )
    arena_limit_bytes: int | None = field(
        default=None,
        metadata=_option(
            auto(size(_MIB, 2**50)),
            "Shared memory for requests and answers at most; auto is a quarter of the memory limit.",
            key="arena_limit",
        ),
    )
    arena_keep_ns: int = field(
        default=60 * _SECOND,
        metadata=_option(
            duration(_SECOND // 10, 24 * _HOUR),
            "How long shared memory is kept that no request needs.",
            key="arena_keep",
        ),
    )
    unread_limit_bytes: int = field(
        default=32 * _MIB,
        metadata=_option(
            size(_MIB, 2**40),
            "Answers that a client's connection may leave unread before its next requests wait.",
            key="unread_limit",
        ),
    )
    pools: str = field(
        default="auto",
        metadata=_option(
            choice("auto", "per-model", "shared"),
            "Which models share worker processes; auto gives each its own while there are few.",
        ),
    )
    allocator: str | None = field(
        default=None,
        metadata=_option(
            auto(ALLOCATOR), "Memory allocator of the workers; auto is glibc's, with huge pages where it may."
        ),
    )
    model_control: str = field(
        default="poll",
        metadata=_option(
            choice("poll", "none", "explicit"),
            "poll looks for new, changed and removed models every second, none only when told to; explicit serves "
            "what load_model names, and what is loaded and unloaded by command.",
        ),
    )
    load_model: tuple[str, ...] = field(
        default=(),
        metadata=_option(
            names(), "A model to load at the start with model_control explicit; * is all. May be repeated."
        ),
    )
    allow_control: bool = field(
        default=False,
        metadata=_option(
            boolean(),
            "Take commands such as load and unload from other machines, too, if gRPC listens to them.",
        ),
    )
    load_timeout_ns: int = field(
        default=600 * _SECOND,
        metadata=_option(
            duration(_SECOND, 24 * _HOUR),
            "How long a worker may take to load and warm up one model.",
            key="load_timeout",
        ),
    )
    run_timeout_ns: int = field(
        default=60 * _SECOND,
        metadata=_option(
            RUN_TIMEOUT,
            "A run that takes longer is ended by killing its worker; its requests are tried once more, each alone.",
            key="run_timeout",
        ),
    )
    hang_timeout_ns: int = field(
        default=_SECOND,
        metadata=_option(
            duration(_SECOND, 24 * _HOUR),
            "A worker that does not respond for so long while it runs nothing is killed and started again, a front end "
            "after ten times that, either after a quarter of it while stopped by a signal.",
            key="hang_timeout",
        ),
    )
    lame_duck_ns: int = field(
        default=0,
        metadata=_option(
            duration(0, _HOUR),
            "How long to serve on after SIGTERM while health says NOT_SERVING; part of the drain timeout.",
            key="lame_duck",
        ),
    )
    drain_timeout_ns: int = field(
        default=30 * _SECOND,
        metadata=_option(
            duration(0, 24 * _HOUR),
            "How long accepted requests may take to finish after SIGTERM.",
            key="drain_timeout",
        ),
    )
    strict: bool = field(
        default=False,
        metadata=_option(boolean(), "Exit if any model cannot be served at start-up."),
    )
    ready_file: Path | None = field(
        default=None,
        metadata=_option(optional_path(), "Write the bound addresses into this file, as JSON, once ready."),
    )
    state_dir: Path | None = field(
        default=None,
        metadata=_option(
            replace(optional_path(), metavar="DIR"),
            "Keep in this folder, for the next start, labels and splits set at run time, and explicit loads.",
        ),
    )
    cache_dir: Path | None = field(
        default=None,
        metadata=_option(
            auto(replace(optional_path(), metavar="DIR")),
            "Keep what can be made again in this folder, such as weights in the form that this CPU computes with; auto "
            "is CACHE_DIRECTORY, else predictd in XDG_CACHE_HOME, else in ~/.cache.",
        ),
    )
    cache_limit_bytes: int = field(
        default=10 * 2**30,
        metadata=_option(
            size(0, 2**50),
            "What lies in cache_dir at most; what was not used for longest goes first. 0 keeps nothing.",
            key="cache_limit",
        ),
    )
    tuned: Path | str = field(
        default="auto",
        metadata=_option(
            path_or("auto", "off"),
            "Use what predictd tune found best on this CPU: auto takes it from model.toml or cache_dir, off leaves it "
            "out, and a file is one that tune wrote.",
        ),
    )
    log_level: str = field(
        default="info",
        metadata=_option(choice("debug", "info", "warning", "error"), "Least level of the log lines."),
    )
    request_log: RequestLogRule = field(
        default=RequestLogRule(),
        metadata=_option(
            _REQUEST_LOG,
            "Log requests, without what they carry: a share of them, such as 0.01, or so many a second, such as 5/s.",
        ),
    )
    # Key -> where its value came from; keys at their default are absent.
    origins: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def connections(self) -> ConnectionRules:
        """What connections may do."""
        return ConnectionRules(
            max_age_ns=self.max_connection_age_ns,
            max_age_grace_ns=self.max_connection_age_grace_ns,
            max_idle_ns=self.max_connection_idle_ns,
            max_streams=self.max_concurrent_streams,
            handshake_timeout_ns=self.handshake_timeout_ns,
            keepalive_time_ns=self.keepalive_time_ns,
            keepalive_timeout_ns=self.keepalive_timeout_ns,
            min_ping_interval_ns=self.min_ping_interval_ns,
            max_ping_strikes=self.max_ping_strikes,
        )

    def origin(self, key: str) -> str:
        """Where a value came from: a flag, an environment variable, a file's path, or "default"."""
        return self.origins.get(key, DEFAULT)


@cache
def options() -> tuple[Option, ...]:
    """All options, in the order of their declaration."""
    return tuple(
        Option(
            field=entry.name,
            key=entry.metadata["key"] or entry.name,
            kind=entry.metadata["kind"],
            help=entry.metadata["help"],
            default=entry.default,
            in_file=entry.metadata["in_file"],
        )
        for entry in fields(Settings)
        if entry.metadata
    )


def resolve(flags: Mapping[str, object], environ: Mapping[str, str], folder: Path = Path()) -> Settings:
    """Settle every option.

    Args:
        flags: What the command line gave, by key: text, True or False, or a tuple of texts for what may be several.
            None and empty mean not given.
        environ: Environment variables. Unknown ones with our prefix are left alone: Kubernetes makes some up
            for a service that is called predictd. An empty one is as good as none.
        folder: Where predictd.toml is looked for.

    Raises:
        ConfigError: A value is wrong, or the file is.
    """
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for option in options():
        if flags.get(option.key) not in (None, ()):
            origins[option.key], raw = option.flag, flags[option.key]
        elif environ.get(option.variable):
            origins[option.key], raw = option.variable, environ[option.variable]
        else:
            continue
        try:
            values[option.field] = option.kind.read(raw)
        except ValueError as error:
            raise ConfigError(origins[option.key], str(error)) from error
    path = values.get("config")
    if path is None and (folder / CONFIG_FILE).exists():
        path = folder / CONFIG_FILE
    if path is not None:
        by_key = {option.key: option for option in options() if option.in_file}
        for key, value in read_toml(path, {key: option.kind for key, option in by_key.items()}).items():
            if key not in origins:
                origins[key] = str(path)
                values[by_key[key].field] = _relative_to(path.parent, value)
    return _checked(Settings(**values | {"config": path, "origins": origins}))


def _relative_to(folder: Path, value: object) -> object:
    # A daemon that systemd starts has no useful working directory; the file's own folder is a stable one.
    if isinstance(value, tuple):
        return tuple(folder / each if isinstance(each, Path) else each for each in value)
    return folder / value if isinstance(value, Path) else value


def _checked(settings: Settings) -> Settings:
    if settings.grpc == settings.http and settings.grpc.port != 0:
        raise ConfigError(_places(settings, "grpc", "http"), f"both cannot listen on {settings.grpc}")
    if settings.load_model and settings.model_control != "explicit":
        raise ConfigError(
            _places(settings, "load_model"),
            f"with model_control {settings.model_control} every model is loaded; only explicit chooses",
        )
    if settings.lame_duck_ns > settings.drain_timeout_ns:
        raise ConfigError(
            _places(settings, "lame_duck", "drain_timeout"),
            f"the lame duck time ({format_duration(settings.lame_duck_ns)}) is part of the drain timeout "
            f"({format_duration(settings.drain_timeout_ns)}) and cannot be longer",
        )
    return settings


def _places(settings: Settings, *keys: str) -> str:
    return " and ".join(f"{key} ({settings.origin(key)})" for key in keys)


def read_toml(path: Path, kinds: Mapping[str, Kind[Any]]) -> dict[str, Any]:
    """Read a TOML file whose keys must all be known.

    Raises:
        ConfigError: The file cannot be read, is not TOML, or has an unknown key or a wrong value.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(str(path), str(error.strerror).lower()) from error
    except ValueError as error:
        raise ConfigError(str(path), f"not TOML: {error}") from error
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in kinds:
            raise ConfigError(str(path), f"unknown key {key!r}{suggestion(key, kinds)}")
        try:
            values[key] = kinds[key].read_toml(value)
        except ValueError as error:
            raise ConfigError(str(path), f"{key}: {error}") from error
    return values


def defaults_table() -> str:
    """All options as a Markdown table, for docs/configuration.md."""
    rows = [
        (
            f"`{option.flag}`",
            f"`{option.variable}`",
            f"`{option.key}`" if option.in_file else "",
            f"`{option.kind.metavar}`",
            f"`{option.default_text}`",
            option.help,
        )
        for option in options()
    ]
    head = ("Flag", "Environment", f"`{CONFIG_FILE}`", "Value", "Default", "Meaning")
    lines = [head, ("---",) * len(head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


if __name__ == "__main__":
    sys.stdout.write(defaults_table())
