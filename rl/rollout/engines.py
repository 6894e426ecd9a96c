"""The engines by the name that `rollout.engine.backend` has for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rl.rollout.sglang_engine import SglangEngine
from rl.rollout.sglang_options import sglang_environment
from rl.rollout.transformers_engine import TransformersEngine, transformers_environment
from rl.rollout.vllm_engine import VllmEngine, vllm_environment

ENGINES: dict[str, type[Any]] = {"vllm": VllmEngine, "sglang": SglangEngine, "transformers": TransformersEngine}
"""Each takes the model's folder and an `EngineConfig`; see `rl.rollout.engine.Engine`."""

ENVIRONMENTS: dict[str, Callable[[int, float], dict[str, str]]] = {
    "vllm": vllm_environment,
    "sglang": sglang_environment,
    "transformers": transformers_environment,
}


def engine_environment(backend: str, threads: int, gpus: float) -> dict[str, str]:
    """Environment that a worker of this backend needs from the start of its process on."""
    return ENVIRONMENTS[backend](threads, gpus)
