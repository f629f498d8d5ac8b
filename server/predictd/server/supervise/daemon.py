"""`predictd serve`: from settings to exit status."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from setproctitle import setproctitle

from predictd.server.config.settings import Settings
from predictd.server.launch.describe import describe
from predictd.server.launch.spawn import raise_nofile_limit
from predictd.server.observe.http import Handler, HttpServer, Request, Response
from predictd.server.observe.log_writer import LogWriter
from predictd.server.observe.logs import configure, report_left_out
from predictd.server.observe.recent import RecentEvents
from predictd.server.observe.routes import build_routes
from predictd.server.observe.status import Document, status_document
from predictd.server.repository.models import Scan
from predictd.server.repository.tuning import TunedError
from predictd.server.repository.watch import look
from predictd.server.supervise import unix_socket
from predictd.server.supervise.announcer import Announcer, Sight
from predictd.server.supervise.assembly import read_planner
from predictd.server.supervise.credentials import Credentials, CredentialsError
from predictd.server.supervise.doors import http_access, http_tls, open_doors
from predictd.server.supervise.guard import LoopGuard
from predictd.server.supervise.notify import Notifier
from predictd.server.supervise.ports import AddressError, ReservedPort, listen, reserve
from predictd.server.supervise.ready_file import clear_ready_file, write_ready_file
from predictd.server.supervise.sandboxing import SandboxError, give_cache, sandboxed
from predictd.server.supervise.selection import at_start, bounded, tuned_results, unservable
from predictd.server.supervise.state_file import Loads, StateError, StateFile
from predictd.server.supervise.supervisor import STOP_SECONDS, Supervisor

OnReady = Callable[[dict[str, str]], None]

# What ending the children takes at most, and as much again.
_END_SECONDS = 4 * STOP_SECONDS

EXIT_OK, EXIT_FAILED, EXIT_CONFIG = 0, 1, 2

_log = logging.getLogger(__name__)


def run(settings: Settings, on_ready: OnReady | None = None) -> int:
    """Serve until SIGTERM or SIGINT.

    Args:
        settings: What to serve, and how.
        on_ready: Called once with the bound addresses ("grpc", "http", "unix") when the daemon is ready.

    Returns:
        0 after a complete drain, 1 when the daemon failed or had to cut requests off, 2 when it cannot start.
    """
    setproctitle("predictd: supervisor")
    # Until there is something to change; its default is to end the process.
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    log = configure("supervisor", settings.log_level)
    try:
        raise_nofile_limit()
        port = reserve(settings.grpc)
        try:
            if settings.unix is None:
                return asyncio.run(_serve(settings, port, log, on_ready))
            return _serve_unix(settings, settings.unix, port, log, on_ready)
        finally:
            port.close()
    except AddressError as error:
        return _refuse(log, f"gRPC address {error}")
    except SandboxError as error:
        return _refuse(log, str(error))
    finally:
        _end_log(log)


def _unix_address(settings: Settings) -> dict[str, str]:
    return {} if settings.unix is None else {"unix": f"unix://{settings.unix.absolute()}"}


def _serve_unix(
    settings: Settings, path: Path, port: ReservedPort, log: LogWriter, on_ready: OnReady | None
) -> int:
    try:
        claimed = unix_socket.claim(path)
    except AddressError as error:
        return _refuse(log, f"unix socket {error}")
    try:
        return asyncio.run(_serve(settings, port, log, on_ready))
    finally:
        unix_socket.remove(claimed)


def _unwritable(ready_file: Path, error: OSError) -> str:
    return f"the ready file {ready_file} cannot be written: {str(error.strerror).lower()}"


def _end_log(log: LogWriter) -> None:
    report_left_out(at_end=True)
    log.close()


def _refuse(log: LogWriter, message: str) -> int:
    """Say why the daemon cannot start, below what else there was to say."""
    _end_log(log)
    sys.stderr.write(f"predictd: {message}\n")
    return EXIT_CONFIG


def _open_files(settings: Settings) -> StateFile | None:
    """Make way for the ready file, and read what was kept. Raises StateError if either cannot be done."""
    if settings.ready_file is not None:
        try:
            clear_ready_file(settings.ready_file)
        except OSError as error:
            raise StateError(_unwritable(settings.ready_file, error)) from error
    return None if settings.state_dir is None else StateFile(settings.state_dir)


def _report(found: Scan) -> None:
    for problem in (*found.problems, *found.warnings):
        _log.warning("%s", problem)
    for model in found.models:
        if model.file.tuned is not None:
            _log.info("model %s: %s", model.name, model.file.tuned)


async def _serve(settings: Settings, port: ReservedPort, log: LogWriter, on_ready: OnReady | None) -> int:
    planner = read_planner()
    try:
        planner = sandboxed(planner, settings, os.environ)
        give_cache(planner.sandbox)
        tuned = tuned_results(settings, os.environ, planner.cores)
    except TunedError as error:
        return _refuse(log, f"tuned ({settings.origin('tuned')}): {error}")
    tune = bounded(settings, tuned.apply)
    sight = look(settings.paths, tune=tune)
    _report(sight.scan)
    why_not = unservable(settings, sight.scan)
    if why_not:
        return _refuse(log, why_not)
    try:
        http_address, http_sockets = listen(settings.http)
    except AddressError as error:
        return _refuse(log, f"HTTP address {error}")
    # Only now that the addresses are ours: a daemon started twice must not touch the first one's files.
    try:
        credentials = Credentials(settings)
        state = _open_files(settings)
    except (CredentialsError, StateError) as error:
        return _refuse(log, str(error))

    wanted = at_start(settings, sight, Loads() if state is None else state.loads, tune)
    for complaint in wanted.complaints:
        _log.warning("%s", complaint)
    supervisor = Supervisor(settings, credentials, planner, wanted, port, state, tune)
    for warning in (*open_doors(settings, port, http_sockets, credentials), *supervisor.plan.warnings):
        _log.warning("%s", warning)
    for line in describe(replace(supervisor.plan, warnings=()), planner.budget).splitlines():
        _log.info("%s", line)
    asyncio.get_running_loop().set_exception_handler(supervisor.tasks.on_loop_error)
    addresses = {"grpc": str(port.address), "http": str(http_address), **_unix_address(settings)}
    announcer = Announcer(Notifier(os.environ, os.getpid()), lambda: _sight(supervisor))
    signals = _Signals(lambda: _reload(supervisor, announcer, credentials), supervisor.log_level.toggle)
    routes = http_access(settings, http_sockets, credentials, supervisor.counts.aggregate).guard(
        _routes(supervisor, log.recent)
    )
    servers = [HttpServer(routes, tls=http_tls(settings, http_sockets, credentials)) for _ in http_sockets]
    try:
        for server, sock in zip(servers, http_sockets, strict=True):
            await server.serve(sock)
        supervisor.start()
        announcer.start()
        # Not before: until here every millisecond is one more until the first answer.
        log.start()
        with LoopGuard():
            return await _live(settings, supervisor, signals, announcer, addresses, on_ready)
    finally:
        await announcer.close()
        await asyncio.gather(*(server.close() for server in servers))
        if state is not None:
            state.close()


async def _live(
    settings: Settings,
    supervisor: Supervisor,
    signals: _Signals,
    announcer: Announcer,
    addresses: dict[str, str],
    on_ready: OnReady | None,
) -> int:
    """From start to the last child's end."""
    supervisor.tasks.spawn(_started(settings, supervisor, announcer, addresses, on_ready))
    failed = asyncio.ensure_future(supervisor.wait(lambda: supervisor.fatal is not None))
    asked = asyncio.ensure_future(signals.first.wait())
    try:
        await asyncio.wait({failed, asked}, return_when=asyncio.FIRST_COMPLETED)
        if not asked.done():
            _log.critical("predictd stops: %s", supervisor.fatal)
            announcer.stop(_END_SECONDS)
            await supervisor.stop()
            return EXIT_FAILED
        announcer.stop(settings.drain_timeout_ns / 1e9 + _END_SECONDS)
        return await _leave(supervisor, signals)
    finally:
        for task in (failed, asked):
            task.cancel()
        await asyncio.gather(failed, asked, return_exceptions=True)


async def _started(
    settings: Settings,
    supervisor: Supervisor,
    announcer: Announcer,
    addresses: dict[str, str],
    on_ready: OnReady | None,
) -> None:
    """Wait until everything is loaded or failed, and tell whoever waits for it."""
    await supervisor.wait(lambda: supervisor.settled)
    failed = supervisor.catalog.failed
    # Whoever loads by command can do so again when nothing of what was restored can be served.
    able = supervisor.catalog.serving or supervisor.keeper.explicit
    if failed and (settings.strict or not able):
        first = failed[0]
        which = "--strict" if settings.strict else "no model can be served"
        supervisor.give_up(
            f"model {first.config.model} version {first.config.version}: {first.reason} ({which})"
        )
        return
    number = len({record.name for record in supervisor.catalog.records() if record.state == "READY"})
    models = "1 model" if number == 1 else f"{number} models"
    where = f"gRPC {addresses['grpc']}, HTTP {addresses['http']}"
    _log.info("ready: %s on %s", models, ", ".join(filter(None, (where, addresses.get("unix")))))
    if settings.ready_file is not None:
        try:
            write_ready_file(settings.ready_file, addresses)
        except OSError as error:
            supervisor.give_up(_unwritable(settings.ready_file, error))
            return
    if on_ready is not None:
        on_ready(addresses)
    announcer.ready()


def _sight(supervisor: Supervisor) -> Sight:
    settled = supervisor.catalog.settled and not supervisor.keeper.looking
    return Sight(supervisor.readiness(), settled, supervisor.responsive)


def _reload(supervisor: Supervisor, announcer: Announcer, credentials: Credentials) -> None:
    announcer.reload()
    credentials.look_now()
    supervisor.keeper.look_now()


async def _leave(supervisor: Supervisor, signals: _Signals) -> int:
    """Drain; a second signal cuts it short."""
    _log.info("draining: finishing what was accepted")
    drain = asyncio.ensure_future(supervisor.drain())
    at_once = asyncio.ensure_future(signals.second.wait())
    await asyncio.wait({drain, at_once}, return_when=asyncio.FIRST_COMPLETED)
    drained = drain.done() and drain.result()
    drain.cancel()
    await asyncio.gather(drain, return_exceptions=True)
    if not drained:
        _log.warning("leaving with requests in flight")
        supervisor.kill()
    stop = asyncio.ensure_future(supervisor.stop())
    await asyncio.wait({stop, at_once}, return_when=asyncio.FIRST_COMPLETED)
    if not stop.done():
        supervisor.kill()
    await stop
    at_once.cancel()
    await asyncio.gather(at_once, return_exceptions=True)
    _log.info("stopped")
    return EXIT_OK if drained else EXIT_FAILED


class _Signals:
    """SIGTERM and SIGINT, counted; SIGHUP calls `hang_up`, SIGUSR1 `toggle`."""

    def __init__(self, hang_up: Callable[[], None], toggle: Callable[[], None]) -> None:
        self.first = asyncio.Event()
        self.second = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._got)
        loop.add_signal_handler(signal.SIGHUP, hang_up)
        loop.add_signal_handler(signal.SIGUSR1, toggle)

    def _got(self) -> None:
        (self.second if self.first.is_set() else self.first).set()


def _routes(supervisor: Supervisor, recent: RecentEvents) -> dict[str, Handler]:
    aggregate = supervisor.counts.aggregate

    def status(model: str) -> Document:
        return status_document(
            aggregate,
            supervisor.gauges(),
            supervisor.overview(),
            supervisor.history,
            recent.newest_first(),
            unix_seconds=time.time(),
            model=model,
        )

    def fresh(handler: Handler) -> Handler:
        async def collected(request: Request) -> Response:
            await supervisor.counts.collect()
            return await handler(request)

        return collected

    routes = dict(build_routes(aggregate, supervisor.gauges, supervisor.readiness, status))
    return {**routes, **{path: fresh(routes[path]) for path in ("/metrics", "/status.json")}}
