"""Configs of inference engines, sampling and rollout workers."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from rl.config.base import StrictModel


class EngineConfig(StrictModel):
    """One inference engine, in the process of its rollout worker."""

    backend: Literal["vllm"] = "vllm"
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    max_model_len: int = Field(8192, ge=16)
    max_num_seqs: int = Field(256, ge=1)
    kv_cache_mb: int | None = Field(None, ge=16)
    """Key-value cache in MiB; null lets the engine take `gpu_memory_utilization` of the GPU."""
    gpu_memory_utilization: float = Field(0.9, gt=0, le=1)
    tensor_parallel_size: int = Field(1, ge=1)
    enforce_eager: bool = False
    """No compilation and no CUDA graphs: starts faster, decodes slower on GPUs. Set it on CPU."""
    images_per_prompt: int = Field(1, ge=0)


class SamplingConfig(StrictModel):
    """How completions are sampled. `top_p` is 1 by contract: training normalises over the whole vocabulary."""

    temperature: float = Field(1.0, gt=0, le=2)
    max_tokens: int = Field(8192, ge=1)


class RolloutConfig(StrictModel):
    """The pool of rollout workers."""

    workers: int = Field(1, ge=1)
    cpus_per_worker: float = Field(1, ge=0)
    gpus_per_worker: float = Field(0, ge=0)
    threads: int = Field(1, ge=1)
    """CPU threads of an engine that runs on CPU."""
    engine: EngineConfig = EngineConfig(max_model_len=12288)
    sampling: SamplingConfig = SamplingConfig()

    @model_validator(mode="after")
    def _room_for_a_prompt(self) -> RolloutConfig:
        if self.sampling.max_tokens >= self.engine.max_model_len:
            raise ValueError(
                f"sampling.max_tokens {self.sampling.max_tokens} leaves no room for a prompt in engine.max_model_len "
                f"{self.engine.max_model_len}; raise max_model_len or lower max_tokens"
            )
        return self


class RewardConfig(StrictModel):
    """The reward workers of a run: killable processes behind Ray actors."""

    workers: int = Field(1, ge=1)
    """Ray actors, each with its own pool."""
    processes: int = Field(1, ge=1)
    """Killable processes per actor."""
    timeout_s: float = Field(2.0, gt=0)
    """Deadline of one completion's score."""
    memory_mb: int = Field(2048, ge=256)
    mixture: str | None = None
    """YAML file of a mixture of rewards, see `rewards.mixture`: it grades what is trained on, and names the judges.
    Evaluations and curation grade by the rows' own answer types all the same. Null: answer types alone, no judges."""
