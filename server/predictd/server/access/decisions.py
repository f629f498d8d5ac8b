"""Whether a call is let through: from its method, its model and who calls, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from predictd.server.access.identity import Identity
    from predictd.server.access.methods import Rule
    from predictd.server.errors import RefusalReason


def refusal(rule: Rule, identity: Identity | None, now_unix_seconds: float) -> RefusalReason | None:
    """Why a call is refused; None where it is not.

    Args:
        rule: Of its method.
        identity: Who calls; None where nobody knows.
        now_unix_seconds: The time.
    """
    if rule.public:
        return None
    if identity is None:
        return "no_credentials"
    if now_unix_seconds >= identity.expires_unix_seconds:
        return "invalid_credentials"
    return None if rule.roles & identity.roles else "role"


def model_refusal(identity: Identity | None, model: str | None) -> RefusalReason | None:
    """Why a caller may not do for a model what it may do, whether or not there is one of that name.

    Args:
        identity: Who calls, and may call the method.
        model: What it is about; None for all models that there are.
    """
    if identity is None:
        return "no_credentials"
    allowed = identity.has_every_model if model is None else identity.may_use(model)
    return None if allowed else "model"
