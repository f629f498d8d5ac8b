"""The rule of every method: the one table from which the server takes the methods that it has.

A method that is not here cannot be registered, so none can be forgotten.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from predictd.server.access.identity import EVERY_ROLE, Role


@dataclass(frozen=True, slots=True)
class Rule:
    """Who may call a method.

    Attributes:
        roles: Any of these is enough. With none the method is everybody's.
    """

    roles: frozenset[Role]

    @property
    def public(self) -> bool:
        """Whoever reaches the daemon may call it."""
        return not self.roles


PUBLIC = Rule(frozenset())
ANY = Rule(EVERY_ROLE)
INFER = Rule(frozenset({Role.INFER}))
OBSERVE = Rule(frozenset({Role.OBSERVE}))
CONTROL = Rule(frozenset({Role.CONTROL}))
# Whoever only reads is an observer; the change itself needs control, which the command asks for.
READ_OR_CONTROL = Rule(frozenset({Role.OBSERVE, Role.CONTROL}))

_SERVICES: Mapping[str, Mapping[str, Rule]] = {
    "predictd.v1.PredictionService": {
        "Predict": INFER,
        "PredictStream": INFER,
        "ListModels": ANY,
        "GetModel": ANY,
    },
    "predictd.v1.RoutingService": {"SetLabel": CONTROL, "SetSplit": CONTROL},
    "predictd.v1.ControlService": {"LoadModel": CONTROL, "UnloadModel": CONTROL, "Reload": CONTROL},
    "inference.GRPCInferenceService": {
        "ServerLive": PUBLIC,
        "ServerReady": PUBLIC,
        "ServerMetadata": ANY,
        "ModelReady": ANY,
        "ModelMetadata": ANY,
        "ModelConfig": ANY,
        "ModelInfer": INFER,
        "ModelStreamInfer": INFER,
        "ModelStatistics": OBSERVE,
        "RepositoryIndex": ANY,
        "RepositoryModelLoad": CONTROL,
        "RepositoryModelUnload": CONTROL,
        "LogSettings": READ_OR_CONTROL,
    },
    "tensorflow.serving.PredictionService": {
        "Predict": INFER,
        "Classify": INFER,
        "Regress": INFER,
        "GetModelMetadata": ANY,
    },
    "tensorflow.serving.ModelService": {"GetModelStatus": ANY, "HandleReloadConfigRequest": CONTROL},
    "grpc.health.v1.Health": {"Check": PUBLIC, "Watch": PUBLIC},
    "grpc.reflection.v1alpha.ServerReflection": {"ServerReflectionInfo": ANY},
}

RULES: Mapping[str, Rule] = {
    f"/{service}/{method}": rule for service, methods in _SERVICES.items() for method, rule in methods.items()
}
"""By the path of the call, `/package.Service/Method`."""
