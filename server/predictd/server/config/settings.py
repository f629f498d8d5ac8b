"""The daemon's settings: one declaration for flag, environment variable, predictd.toml key, default, help.

`Settings` is that declaration. An option's key is `max_delay` in predictd.toml, `--max-delay` on the command
line and `PREDICTD_MAX_DELAY` in the environment; its attribute carries the unit besides (`max_delay_ns`).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from predictd.engines.traits import BUILT_IN
from predictd.server.config import shared_kinds as kinds
from predictd.server.config.connections import ConnectionRules
from predictd.server.config.option import Option, declared_options, option
from predictd.server.config.request_log import RequestLogRule, parse_request_log
from predictd.server.config.units import (
    Address,
    Kind,
    auto,
    boolean,
    choice,
    duration,
    integer,
    many_paths,
    names,
    optional_path,
    parse_address,
    path_or,
    size,
    user,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

CONFIG_FILE = "predictd.toml"
DEFAULT = "default"

_MIB = 2**20

_CONNECTION_TIME = duration(0, 7 * 24 * kinds.HOUR)

_REQUEST_LOG: Kind[RequestLogRule] = Kind(
    "FRACTION|N/s|off",
    'a fraction, a rate such as "5/s", or "off"',
    (str, int, float),
    parse_request_log,
    str,
)
_FOLDER = replace(optional_path(), metavar="DIR")
_CACHE_FOLDER = auto(_FOLDER)
_ADDRESS: Kind[Address] = Kind("HOST:PORT", 'a string "HOST:PORT"', (str,), parse_address, str)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that the daemon can be told. What an attribute means stands in its help."""

    paths: tuple[Path, ...] = option(
        (), many_paths(), "Model files, model folders or model repositories to serve."
    )
    config: Path | None = option(
        None,
        optional_path(),
        f"Read settings from this file; without it ./{CONFIG_FILE} is read if it exists.",
        in_file=False,
    )
    grpc: Address = option(
        Address("127.0.0.1", 8001), _ADDRESS, "Where gRPC listens. Port 0 takes a free port."
    )
    unix: Path | None = option(
        None, optional_path(), "Let gRPC also listen on this unix socket; front end 0 alone serves it."
    )
    http: Address = option(
        Address("127.0.0.1", 8002),
        _ADDRESS,
        "Where the status page, /metrics, /healthz and /readyz listen. Port 0 takes a free port.",
    )
    tls_certificate: Path | None = option(
        None,
        optional_path(),
        "Encrypt gRPC over TCP with the certificate in this file, in PEM, with those up to its root after it. A new "
        "one is taken without a restart.",
    )
    tls_key: Path | None = option(None, optional_path(), "The private key of tls_certificate, in PEM.")
    tls_client_ca: Path | None = option(
        None,
        optional_path(),
        "Let in over TCP only clients that show a certificate of an authority in this file (mutual TLS).",
    )
    http_tls: str = option(
        "auto",
        choice("auto", "on", "off"),
        "Whether HTTP is encrypted with tls_certificate; auto is where it listens beyond the loopback.",
    )
    tokens: Path | None = option(
        None,
        optional_path(),
        "Let in only whoever shows a token, or a certificate, that this file lists, for what it says there. A changed "
        "file is taken without a restart.",
    )
    frontends: int | None = option(
        None, auto(integer(1, 256)), "Processes that speak gRPC; auto follows the CPUs at hand."
    )
    frontend: str = option(
        "auto",
        choice("auto", "grpcio", "native"),
        "What carries the connections of gRPC; auto is predictd-native where it is installed.",
    )
    instances: int | None = option(
        None,
        auto(kinds.COUNT),
        "Worker processes of each pool; auto is one on each NUMA node, whose threads use its cores.",
    )
    threads: int | None = option(
        None,
        auto(kinds.COUNT),
        "Threads of one run; auto follows the CPUs at hand, with one for a model whose runs are too short for more.",
    )
    engine: str = option(
        "auto",
        choice("auto", *BUILT_IN),
        "Loads the models that say nothing of an engine, as far as it serves files of their kind; auto is the "
        "usual engine of each kind.",
    )
    while_building: str = option(
        "none",
        kinds.WHILE_BUILDING,
        "Serves a model while its own engine builds what it runs, such as a TensorRT plan of an ONNX file.",
    )
    max_batch_size: int = option(
        32,
        kinds.ROWS,
        "Rows of several requests merged into one run at most; fewer where more turn out to save nothing.",
    )
    max_delay_ns: int = option(
        0, kinds.DELAY, "How long a batch may wait to fill; 0s never waits.", key="max_delay"
    )
    max_queue_size: int = option(
        1024, kinds.QUEUE_SIZE, "Requests of a model that may wait; more are refused."
    )
    max_queue_bytes: int = option(
        0,
        kinds.QUEUE_BYTES,
        "Bytes of requests of a model that may wait in a front end; more are refused. 0 leaves it to arena_limit.",
    )
    max_concurrent_per_client: int = option(
        0,
        integer(0, 2**20),
        "Requests that a client, by its address, may have in each front end at once; more are refused. 0 is no "
        "limit.",
    )
    default_deadline_ns: int = option(
        0,
        kinds.DEADLINE,
        "When a request is given up for which the client sets no deadline; 0s never.",
        key="default_deadline",
    )
    max_request_rows: int = option(4096, kinds.ROWS, "A request with more rows is refused.")
    max_message_bytes: int = option(
        256 * _MIB, size(1024, kinds.INT32), "Largest gRPC message taken or given.", key="max_message_size"
    )
    max_connection_age_ns: int = option(
        1800 * kinds.SECOND,
        _CONNECTION_TIME,
        "When a client is asked to go on with a new connection, give or take a tenth; 0s never.",
        key="max_connection_age",
    )
    max_connection_age_grace_ns: int = option(
        0,
        _CONNECTION_TIME,
        "How long calls and streams of a connection that is past its age may go on before it is cut; 0s is as long "
        "as they take.",
        key="max_connection_age_grace",
    )
    max_connection_idle_ns: int = option(
        0,
        _CONNECTION_TIME,
        "How long a connection without calls is kept; 0s until it is past its age.",
        key="max_connection_idle",
    )
    max_concurrent_streams: int = option(
        10_000,
        integer(1, kinds.INT32),
        "Calls of one connection at once; its client holds back what is more.",
    )
    max_connections: int = option(
        10_000,
        integer(1, 2**20),
        "Connections of each front end at each address; more are closed at once. Fewer where the limit of open files "
        "is lower.",
    )
    max_metadata_bytes: int = option(
        16 * 2**10,
        size(1024, _MIB),
        "Largest metadata of a call taken, with 32 bytes more for each entry.",
        key="max_metadata_size",
    )
    handshake_timeout_ns: int = option(
        20 * kinds.SECOND,
        duration(kinds.SECOND, kinds.HOUR),
        "A client that connects and does not begin to speak HTTP/2 for so long is cut off.",
        key="handshake_timeout",
    )
    keepalive_time_ns: int = option(
        60 * kinds.SECOND,
        _CONNECTION_TIME,
        "Silence of a client after which it is asked whether it is still there; 0s never asks.",
        key="keepalive_time",
    )
    keepalive_timeout_ns: int = option(
        20 * kinds.SECOND,
        duration(kinds.SECOND // 10, kinds.HOUR),
        "A client that does not answer that for so long is cut off.",
        key="keepalive_timeout",
    )
    min_ping_interval_ns: int = option(
        10 * kinds.SECOND,
        duration(0, kinds.HOUR),
        "A client may ask whether we are still there so often; more often is a strike.",
        key="min_ping_interval",
    )
    max_ping_strikes: int = option(
        2, integer(0, 1000), "A client with more strikes is sent away with ENHANCE_YOUR_CALM; 0 never is."
    )
    max_response_bytes: int = option(
        0,
        size(0, kinds.INT32),
        "Largest answer to one request, counted in bytes of its outputs. 0 leaves it to max_message_size.",
        key="max_response_size",
    )
    tfs_tensor_content: bool = option(
        False, boolean(), "Answer TensorFlow Serving clients in tensor_content, not in lists of values."
    )
    tfs_unready_labels: bool = option(
        False,
        boolean(),
        "TensorFlow Serving clients may give labels not in use to versions that are not ready.",
    )
    arena_limit_bytes: int | None = option(
        None,
        auto(size(_MIB, 2**50)),
        "Shared memory for requests and answers at most; auto is a quarter of the memory limit.",
        key="arena_limit",
    )
    arena_keep_ns: int = option(
        60 * kinds.SECOND,
        duration(kinds.SECOND // 10, 24 * kinds.HOUR),
        "How long shared memory is kept that no request needs.",
        key="arena_keep",
    )
    unread_limit_bytes: int = option(
        32 * _MIB,
        size(_MIB, 2**40),
        "Answers that a client's connection may leave unread before its next requests wait.",
        key="unread_limit",
    )
    upload_limit_bytes: int | None = option(
        None,
        auto(size(0, 2**40)),
        "Memory of messages that a front end is receiving; beyond it those that take long are refused. auto is a "
        "quarter of arena_limit, or two of the largest messages; 0 is no limit.",
        key="upload_limit",
    )
    linked_dir: tuple[Path, ...] = option(
        (),
        many_paths(),
        "A folder besides those of PATH that links among the models may lead into. May be repeated.",
    )
    worker_sandbox: str = option(
        "auto",
        choice("auto", "require", "off"),
        "Keep workers, which load the models, from the network, from files and from whatever else they do not need: "
        "auto as far as the system can, require refuses to start where it cannot.",
    )
    worker_user: str | None = option(
        None, user(), "Run workers as this user, USER or USER:GROUP; the daemon must be root for it."
    )
    pools: str = option(
        "auto",
        choice("auto", "per-model", "shared"),
        "Which models share worker processes; auto gives each its own while there are few.",
    )
    allocator: str | None = option(
        None,
        auto(kinds.ALLOCATOR),
        "Memory allocator of the workers; auto is glibc's, with huge pages where it may.",
    )
    model_control: str = option(
        "poll",
        choice("poll", "none", "explicit"),
        "poll looks for new, changed and removed models every second, none only when told to; explicit serves "
        "what load_model names, and what is loaded and unloaded by command.",
    )
    load_model: tuple[str, ...] = option(
        (), names(), "A model to load at the start with model_control explicit; * is all. May be repeated."
    )
    allow_control: bool = option(
        False,
        boolean(),
        "Without tokens, take commands such as load and unload from other machines, too, if gRPC listens to them.",
    )
    load_timeout_ns: int = option(
        600 * kinds.SECOND,
        duration(kinds.SECOND, 24 * kinds.HOUR),
        "How long a worker may take to load and warm up one model.",
        key="load_timeout",
    )
    run_timeout_ns: int = option(
        60 * kinds.SECOND,
        kinds.RUN_TIMEOUT,
        "A run that takes longer is ended by killing its worker; its requests are tried once more, each alone.",
        key="run_timeout",
    )
    hang_timeout_ns: int = option(
        kinds.SECOND,
        duration(kinds.SECOND, 24 * kinds.HOUR),
        "A worker that does not respond for so long while it runs nothing is killed and started again, a front end "
        "after ten times that, either after a quarter of it while stopped by a signal.",
        key="hang_timeout",
    )
    lame_duck_ns: int = option(
        0,
        duration(0, kinds.HOUR),
        "How long to serve on after SIGTERM while health says NOT_SERVING; part of the drain timeout.",
        key="lame_duck",
    )
    drain_timeout_ns: int = option(
        30 * kinds.SECOND,
        duration(0, 24 * kinds.HOUR),
        "How long accepted requests may take to finish after SIGTERM.",
        key="drain_timeout",
    )
    strict: bool = option(False, boolean(), "Exit if any model cannot be served at start-up.")
    ready_file: Path | None = option(
        None, optional_path(), "Write the bound addresses into this file, as JSON, once ready."
    )
    state_dir: Path | None = option(
        None,
        _FOLDER,
        "Keep in this folder, for the next start, labels and splits set at run time, and explicit loads.",
    )
    cache_dir: Path | None = option(
        None,
        _CACHE_FOLDER,
        "Keep what can be made again in this folder, such as weights in the form that this CPU computes with; auto "
        "is CACHE_DIRECTORY, else predictd in XDG_CACHE_HOME, else in ~/.cache.",
    )
    cache_limit_bytes: int = option(
        10 * 2**30,
        size(0, 2**50),
        "What lies in cache_dir at most; what was not used for longest goes first. 0 keeps nothing.",
        key="cache_limit",
    )
    tuned: Path | str = option(
        "auto",
        path_or("auto", "off"),
        "Use what predictd tune found best on this CPU: auto takes it from model.toml or cache_dir, off leaves it "
        "out, and a file is one that tune wrote.",
    )
    log_level: str = option(
        "info", choice("debug", "info", "warning", "error"), "Least level of the log lines."
    )
    request_log: RequestLogRule = option(
        RequestLogRule(),
        _REQUEST_LOG,
        "Log requests, without what they carry: a share of them, such as 0.01, or so many a second, such as 5/s.",
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
            max_connections=self.max_connections,
            max_metadata_bytes=self.max_metadata_bytes,
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
    return declared_options(Settings)
