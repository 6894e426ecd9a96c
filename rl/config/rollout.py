"""Configs of inference engines, sampling and rollout workers."""

from __future__ import annotations

import re
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

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
    deterministic: bool = False
    """One sequence at a time and no prefix cache. What is sampled then follows from weights, prompt and seed alone; an
    engine otherwise batches what happens to be in flight, and the order of its sums follows the batch. Slow: for tests
    and for hunting differences between runs."""


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
    """The reward workers of a run: killable processes behind Ray actors, or a reward service elsewhere."""

    workers: int = Field(1, ge=1)
    """Ray actors, each with its own pool."""
    processes: int = Field(1, ge=1)
    """Killable processes per actor."""
    timeout_s: float = Field(2.0, gt=0)
    """Deadline of one completion's score."""
    memory_mb: int = Field(2048, ge=512)
    mixture: str | None = None
    """YAML file of a mixture of rewards, see `rewards.mixture`: it grades what is trained on, and names the judges.
    Evaluations and curation grade by the rows' own answer types all the same. Null: answer types alone, no judges."""
    plugins: dict[str, str] = {}
    """Further verifiers, answer type -> `module:attribute`, or the path of a .py file from the working directory. Files
    travel with the run; modules must be importable on every node."""
    url: str | None = None
    """A reward service (`rewards serve`) that grades in place of processes here; it has its own plug-ins and limits."""
    token_env: str | None = None
    """Environment variable of the driver that holds the service's token; the token itself has no place in a config."""
    deadline_s: float = Field(300.0, gt=0)
    """How long a group may wait for the service, retries included, before the run ends."""

    @field_validator("url")
    @classmethod
    def _url_without_secrets(cls, url: str | None) -> str | None:
        if url is None:
            return url
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("it must be of the form http://host:port")
        if parts.username or parts.password or parts.query:
            raise ValueError("a password or key in it would be saved with the run; set token_env")
        return url

    @field_validator("token_env")
    @classmethod
    def _names_a_variable(cls, name: str | None) -> str | None:
        if name is not None and not re.fullmatch(r"[A-Z_][A-Z0-9_]*", name):
            raise ValueError("it names an environment variable, such as REWARDS_TOKEN; it is not the token")
        return name

    @model_validator(mode="after")
    def _service_or_local(self) -> RewardConfig:
        if self.token_env is not None and self.url is None:
            raise ValueError("token_env is for a reward service; set url too, or leave both out")
        if self.url is not None and self.plugins:
            raise ValueError(
                "with url the service grades, with plug-ins of its own; start it with them and set none here"
            )
        return self
