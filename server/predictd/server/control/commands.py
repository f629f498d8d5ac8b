"""Messages about what is served: commands of operators, on their way from a front end to the supervisor and back.

Each carries a `seq` that its answer repeats.
"""

from __future__ import annotations

import msgspec

from predictd.server.control.message import Message


class SetLabel(Message, frozen=True, kw_only=True):
    """Frontend: give a version a label; without a version, take back what was set at run time."""

    seq: int
    model: str
    label: str
    version: int | None
    allow_unready: bool


class SetSplit(Message, frozen=True, kw_only=True):
    """Frontend: divide the requests that name neither version nor label; empty no longer does."""

    seq: int
    model: str
    split: tuple[tuple[int, int], ...]
    allow_unready: bool


class LabelsDone(Message, frozen=True, kw_only=True):
    """Supervisor: a label or a split took effect in every front end, or `status`, a gRPC status, says why not."""

    seq: int
    status: str = ""
    message: str = ""


class LoadModel(Message, frozen=True, kw_only=True):
    """Frontend: load a model, again if it failed. `config` is empty, or JSON that overrides its configuration."""

    seq: int
    model: str
    config: str = ""


class UnloadModel(Message, frozen=True, kw_only=True):
    """Frontend: unload a model once its requests are finished."""

    seq: int
    model: str


class Reload(Message, frozen=True, kw_only=True):
    """Frontend: look at the disk now, as at SIGHUP."""

    seq: int


class ListedModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model of a list that names all that shall be served. `config` as in LoadModel; `labels` has versions."""

    name: str
    base_path: str
    config: str = ""
    labels: dict[str, int] = {}


class ServeList(Message, frozen=True, kw_only=True):
    """Frontend: serve exactly these models."""

    seq: int
    models: list[ListedModel]


class CommandDone(Message, frozen=True, kw_only=True):
    """Supervisor: what became of a command. `status` is empty when it was carried out (see `control.outcomes`)."""

    seq: int
    status: str = ""
    message: str = ""


Command = LoadModel | UnloadModel | Reload | ServeList
