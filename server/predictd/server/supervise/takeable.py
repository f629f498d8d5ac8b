"""Whether a model can be loaded in the way that a command asks for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

from predictd.server.config.model_config import ModelConfig, contradictions
from predictd.server.errors import FailedPreconditionError, InvalidRequestError, UnknownModelError
from predictd.server.repository.models import FoundModel
from predictd.server.repository.policies import missing
from predictd.server.repository.watch import Sight


def check_takeable(sight: Sight, name: str, override: ModelConfig, base_path: str = "") -> None:
    """Raise unless a model can be loaded in this way.

    Args:
        sight: Of all models, with what lies over their configurations.
        name: The model.
        override: What lies over its configuration.
        base_path: The folder that it is said to have; empty where nothing is said.

    Raises:
        UnknownModelError: It is not there.
        FailedPreconditionError: It cannot be served as it is.
        InvalidRequestError: It is in another folder, or what is said of it contradicts its configuration.
    """
    model = next((model for model in sight.scan.models if model.name == name), None)
    if model is None:
        _refuse(sight, name)
    for version in missing([found.version for found in model.versions], override.version_policy):
        raise InvalidRequestError(f"config: version_policy: model {name!r} has no version {version}")
    if override != ModelConfig():
        for notice in contradictions(model.file):
            raise InvalidRequestError(f"config: {notice.field}: {notice.message}")
    # Of what a client says, realpath refuses nothing but this.
    if base_path and ("\0" in base_path or os.path.realpath(base_path) != os.path.realpath(_folder(model))):
        raise InvalidRequestError(f"base_path {base_path!r} is not where the daemon has model {name!r} from")


def _refuse(sight: Sight, name: str) -> NoReturn:
    if any(model.name == name for model in sight.scan.rejected):
        about = [
            str(problem)
            for problem in sight.scan.problems
            if name in problem.path.parts or problem.path.stem == name
        ]
        reason = f": {'; '.join(about)}" if about else ""
        raise FailedPreconditionError(f"model {name!r} cannot be served as it is{reason}")
    raise UnknownModelError(f"there is no model {name!r} in the paths that the daemon serves")


def _folder(model: FoundModel) -> Path:
    """A model's own folder, which holds the folders of its versions if it has such."""
    version = model.versions[0]
    folder = version.path if version.path.is_dir() else version.path.parent
    return folder.parent if folder.name == str(version.version) else folder
