"""What the settings ask for of the workers' sandbox, as the launcher takes it."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Mapping
from dataclasses import replace

from predictd.server.config.cache_folder import cache_folder
from predictd.server.config.settings import Settings
from predictd.server.launch.sandbox.confinement import SandboxRequest, Support, User, missing
from predictd.server.repository.bounds import roots
from predictd.server.repository.tfs_config import SUFFIX as TFS_SUFFIX
from predictd.server.supervise.assembly import Planner


class SandboxError(Exception):
    """Workers cannot be run as the settings ask for. The message is one line."""


def sandbox_request(settings: Settings, environment: Mapping[str, str], support: Support) -> SandboxRequest:
    """What to ask the launcher for.

    Args:
        settings: The daemon's.
        environment: The daemon's.
        support: What the system has.

    Raises:
        SandboxError: It cannot be had.
    """
    cache = cache_folder(settings, environment)
    lists = any(path.suffix == TFS_SUFFIX for path in settings.paths)
    request = SandboxRequest(
        mode=settings.worker_sandbox,
        user=None if settings.worker_user is None else _user(settings.worker_user, settings),
        read=roots((*settings.paths, *settings.linked_dir)),
        write=() if cache is None else (str(cache),),
        # It is read again while workers run, and may name other folders then.
        unbounded="a models.config names the folders" if lists else "",
    )
    lacks = missing(request, support)
    if lacks:
        raise SandboxError(
            f"worker_sandbox ({settings.origin('worker_sandbox')}): {lacks} not available here"
        )
    return request


def sandboxed(planner: Planner, settings: Settings, environment: Mapping[str, str]) -> Planner:
    """A planner that confines workers as the settings ask for. Raises SandboxError if that cannot be had."""
    return replace(planner, sandbox=sandbox_request(settings, environment, planner.facilities.sandbox))


def give_cache(request: SandboxRequest) -> None:
    """Have the cache's folder, which is made if it is not there, belong to the user that workers are.

    Raises:
        SandboxError: That cannot be done.
    """
    if request.user is None:
        return
    for folder in request.write:
        try:
            os.makedirs(folder, mode=0o700, exist_ok=True)  # noqa: PTH103
            if os.stat(folder).st_uid != request.user.uid:  # noqa: PTH116
                _give(folder, request.user)
        except OSError as error:
            reason = str(error.strerror).lower()
            raise SandboxError(
                f"cache_dir {folder} cannot be given to user {request.user.name}: {reason}"
            ) from error


def _give(folder: str, user: User) -> None:
    """All that lies in a folder, links themselves included, and the folder last: until then it is gone on with."""
    for here, folders, files in os.walk(folder, topdown=False):
        for name in (*folders, *files):
            path = os.path.join(here, name)  # noqa: PTH118
            found = os.lstat(path)
            # A file that has other names, too, may be anybody's.
            if stat.S_ISDIR(found.st_mode) or found.st_nlink == 1:
                os.chown(path, user.uid, user.gid, follow_symlinks=False)
    os.chown(folder, user.uid, user.gid)


def _user(text: str, settings: Settings) -> User:
    name, _, group = text.partition(":")
    place = f"worker_user ({settings.origin('worker_user')})"
    try:
        entry = pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
        uid, gid, called = entry.pw_uid, entry.pw_gid, entry.pw_name
    except KeyError:
        if not name.isdecimal():
            raise SandboxError(f"{place}: there is no user {name!r}") from None
        # A container's user often has no name; then it has the group of its number.
        uid, gid, called = int(name), int(name), name
    try:
        if group:
            gid = int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid
    except KeyError:
        raise SandboxError(f"{place}: there is no group {group!r}") from None
    if os.geteuid() not in (0, uid):
        raise SandboxError(f"{place}: only root can run workers as another user; this is user {os.geteuid()}")
    if os.geteuid() == uid:
        groups = tuple(os.getgroups())
    else:
        groups = tuple(os.getgrouplist(called, gid)) if not called.isdecimal() else (gid,)
    return User(called, uid, gid, groups)
