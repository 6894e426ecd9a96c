"""Rewards for RL on verifiable answers: usable alone, without the trainer.

    >>> import rewards
    >>> rewards.score("<think>2 + 2</think><answer>4</answer>", "4", "number").value
    1.0

`score` grades in this process; `RewardPool` grades in worker processes that can be killed; `RemotePool` asks a service
that does so elsewhere. Importing this package loads neither a verifier nor its libraries: the names below are resolved
at first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rewards import esmiles, extract, registry
    from rewards.base import RewardResult, UnknownVerifier, Verifier
    from rewards.judge import JudgeConfig, JudgePool
    from rewards.mixture import Mixture
    from rewards.plugins import PluginError
    from rewards.pool import RewardPool
    from rewards.registry import score
    from rewards.remote import RemotePool
    from rewards.request import Request
    from rewards.worker import PoolError

__version__ = "0.1.0"

__all__ = [
    "JudgeConfig",
    "JudgePool",
    "Mixture",
    "PluginError",
    "PoolError",
    "RemotePool",
    "Request",
    "RewardPool",
    "RewardResult",
    "UnknownVerifier",
    "Verifier",
    "esmiles",
    "extract",
    "registry",
    "score",
]

_HOMES = {
    "JudgeConfig": "rewards.judge",
    "JudgePool": "rewards.judge",
    "Mixture": "rewards.mixture",
    "PluginError": "rewards.plugins",
    "RemotePool": "rewards.remote",
    "PoolError": "rewards.worker",
    "Request": "rewards.request",
    "RewardPool": "rewards.pool",
    "RewardResult": "rewards.base",
    "UnknownVerifier": "rewards.base",
    "Verifier": "rewards.base",
    "score": "rewards.registry",
}


_MODULES = ("esmiles", "extract", "registry")


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"rewards.{name}")
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'rewards' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(home), name)
