"""How SGLang's server is started for an engine's settings: environment and command line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from rl.config.rollout import EngineConfig
from rl.errors import EngineError
from rl.rollout.sglang_push import LOADER

CPU_PLATFORM = "rl_cpu"
"""The platform that requirements/sglang_cpu adds to SGLang."""


def sglang_environment(threads: int, gpus: float) -> dict[str, str]:
    """Environment of a worker, which its server inherits."""
    env = {
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": str(threads),
        # Idle connections are closed by the client, never under a request of its.
        "SGLANG_TIMEOUT_KEEP_ALIVE": "3600",
    }
    if gpus == 0:
        env |= {"SGLANG_PLATFORM": CPU_PLATFORM, "TORCHDYNAMO_DISABLE": "1"}
    return env


def server_arguments(model: str, config: EngineConfig, version: int) -> list[str]:
    """SGLang's command line for these settings."""
    on_cpu = _on_cpu()
    options: dict[str, Any] = {
        "model-path": model,
        "dtype": config.dtype,
        "context-length": config.max_model_len,
        "max-running-requests": slots_of(config),
        "tp-size": config.tensor_parallel_size,
        "weight-version": version,
        "random-seed": 0,
        "custom-weight-loader": LOADER,
        "log-level": "warning",
    }
    flags = ["skip-server-warmup"]
    if config.kv_cache_mb is not None:
        options["max-total-tokens"] = cache_tokens(model, config)
    elif not on_cpu:
        options["mem-fraction-static"] = config.gpu_memory_utilization
    if config.enforce_eager or on_cpu:
        options |= {"cuda-graph-backend-decode": "disabled", "cuda-graph-backend-prefill": "disabled"}
    if config.deterministic or on_cpu:
        flags.append("enable-deterministic-inference")
    if config.deterministic:
        flags.append("disable-radix-cache")
    if on_cpu:
        options |= {"device": "cpu", "attention-backend": "torch_native", "sampling-backend": "pytorch"}
        flags.append("disable-overlap-schedule")
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return [*words, *(f"--{flag}" for flag in flags)]


def _on_cpu() -> bool:
    return os.environ.get("SGLANG_PLATFORM") == CPU_PLATFORM


def slots_of(config: EngineConfig) -> int:
    """Sequences that the server decodes at once."""
    return 1 if config.deterministic and _on_cpu() else config.max_num_seqs


def cache_tokens(model: str | Path, config: EngineConfig) -> int:
    """Tokens whose keys and values fill `kv_cache_mb`: two vectors a layer and head, in the engine's dtype.

    Raises:
        EngineError: not even one sequence of `max_model_len` would fit.
    """
    from transformers import AutoConfig

    assert config.kv_cache_mb is not None
    text = AutoConfig.from_pretrained(model).get_text_config()
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    width = 4 if config.dtype == "float32" else 2
    per_token = 2 * text.num_hidden_layers * -(-heads // config.tensor_parallel_size) * head_dim * width
    tokens = (config.kv_cache_mb << 20) // per_token
    if tokens < config.max_model_len:
        raise EngineError(
            f"engine.kv_cache_mb {config.kv_cache_mb} holds the keys and values of {tokens} tokens, fewer than one "
            f"sequence of engine.max_model_len {config.max_model_len}; raise the one or lower the other"
        )
    return int(tokens)
