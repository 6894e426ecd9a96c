"""Configs of inference engines, sampling and rollout workers."""

from __future__ import annotations

import re
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from rl.config.base import StrictModel
from rl.config.faults import FaultConfig
from rl.config.placement import PlacedConfig

SHORTEST_S = 0.01
"""No grader answers faster than its request travels: below this every score would be a timeout."""


class SglangConfig(StrictModel):
    """SGLang's server, a process of its own beside each rollout worker. Read with `backend: sglang` alone."""

    python: str | None = None
    """Interpreter of the environment that SGLang is installed in, since it can't share one with vLLM. Null: what
    RL_SGLANG_PYTHON names, else `.venv-sglang/bin/python` in the working directory: `make install-sglang` makes it."""
    start_s: float = Field(600.0, gt=0)
    """How long a server may take until it serves."""
    arguments: tuple[str, ...] = ()
    """Further words of the server's command line, such as `--attention-backend`, `fa3`; they win over those that follow
    from the settings here."""


class EngineConfig(StrictModel):
    """One inference engine of a rollout worker."""

    backend: Literal["vllm", "sglang", "transformers"] = "vllm"
    """What generates: vLLM inside the worker's process, SGLang in a server of its own, or plain transformers, which is
    slow and serves what neither of them knows."""
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    """Of weights and activations. `float32` on CPU; `bfloat16` makes the probe's difference larger."""
    max_model_len: int = Field(12288, ge=16)
    """Tokens of prompt and completion together; at most the positions of the model."""
    max_num_seqs: int = Field(256, ge=1)
    """Sequences that one engine decodes at once."""
    kv_cache_mb: int | None = Field(None, ge=16)
    """Key-value cache in MiB; null lets the engine take `gpu_memory_utilization` of the GPU."""
    gpu_memory_utilization: float = Field(0.9, gt=0, le=1)
    """Share of a GPU's memory for weights and cache. Not read where `kv_cache_mb` is set."""
    tensor_parallel_size: int = Field(1, ge=1)
    """GPUs that share one engine's weights."""
    enforce_eager: bool = False
    """No compilation and no CUDA graphs: starts faster, decodes slower on GPUs. Set it on CPU."""
    images_per_prompt: int = Field(1, ge=0)
    """Most images that a prompt may hold."""
    deterministic: bool = False
    """One sequence at a time and no prefix cache. What is sampled then follows from weights, prompt and seed alone; an
    engine otherwise batches what happens to be in flight, and the order of its sums follows the batch. Slow: for tests
    and for hunting differences between runs. SGLang on GPUs runs batch-invariant kernels instead; without them it does
    not heed seeds there."""
    sglang: SglangConfig = SglangConfig()

    @model_validator(mode="after")
    def _fits_the_backend(self) -> EngineConfig:
        if self.sglang != SglangConfig() and self.backend != "sglang":
            raise ValueError(f"sglang is set and backend is {self.backend!r}; set backend: sglang, or leave sglang out")
        if self.backend == "transformers" and self.tensor_parallel_size != 1:
            raise ValueError(
                f"the transformers backend runs on one device; set tensor_parallel_size to 1 instead of "
                f"{self.tensor_parallel_size}, or choose another backend"
            )
        return self


class SamplingConfig(StrictModel):
    """How completions are sampled. `top_p` is 1 by contract: training normalises over the whole vocabulary."""

    temperature: float = Field(1.0, gt=0, le=2)
    """Logits are divided by it; training takes logprobs at the same one."""
    max_tokens: int = Field(8192, ge=1)
    """Longest completion; one that reaches it is cut off."""


class RolloutConfig(PlacedConfig):
    """The pool of rollout workers."""

    workers: int = Field(1, ge=1)
    """Processes with an engine each."""
    cpus_per_worker: float = Field(1, ge=0)
    """What Ray sets aside for a worker."""
    gpus_per_worker: float = Field(0, ge=0)
    """0 runs the engine on CPU."""
    threads: int = Field(1, ge=1)
    """CPU threads of an engine that runs on CPU."""
    engine: EngineConfig = EngineConfig()
    sampling: SamplingConfig = SamplingConfig()
    faults: FaultConfig = FaultConfig()

    @model_validator(mode="after")
    def _room_for_a_prompt(self) -> RolloutConfig:
        if self.sampling.max_tokens >= self.engine.max_model_len:
            raise ValueError(
                f"sampling.max_tokens {self.sampling.max_tokens} leaves no room for a prompt in engine.max_model_len "
                f"{self.engine.max_model_len}; raise max_model_len or lower max_tokens"
            )
        return self


class RewardConfig(PlacedConfig):
    """The reward workers of a run: killable processes behind Ray actors, or a reward service elsewhere."""

    workers: int = Field(1, ge=1)
    """Ray actors, each with its own pool."""
    processes: int = Field(1, ge=1)
    """Killable processes per actor."""
    timeout_s: float = Field(2.0, ge=SHORTEST_S, lt=3600)
    """Deadline of one completion's score."""
    timeouts: dict[str, float] = {}
    """Other deadlines, answer type -> seconds. Where it is not named here, the built-in general-code, which runs
    programs, has 60."""
    memory_mb: int = Field(2048, ge=512)
    """Address space of one killable process in MiB; a grader that wants more is ended."""
    mixture: str | None = None
    """YAML file of a mixture of rewards, see `rewards.mixture`: it grades what is trained on, and names the judges.
    Evaluations and curation grade by the rows' own answer types all the same. Null: answer types alone, no judges. The
    file is read where the run is started."""
    root: str | None = None
    """Folder below which relative paths in the mixture's file, the caches of its judges, are; null: the working
    directory of where the run is started."""
    plugins: dict[str, str] = {}
    """Further verifiers, answer type -> `module:attribute`, or the path of a .py file from the working directory. Files
    travel with the run; modules must be importable on every node."""
    url: str | None = None
    """A reward service (`rewards serve`) that grades in place of processes here; it has its own plug-ins and limits."""
    token_env: str | None = None
    """Environment variable of the driver that holds the service's token; the token itself has no place in a config."""
    faults: FaultConfig = FaultConfig()
    """Of the workers, and of the one of the mixture's judges: Ray starts that anew when it dies, and when it hangs."""
    patience_s: float = Field(600.0, gt=0)
    """How long a run waits for a service that is busy or away and grades nothing at all, before it ends."""

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
        if self.url is not None and self.timeouts:
            raise ValueError("with url the service grades, within limits of its own; leave timeouts out")
        return self

    @model_validator(mode="after")
    def _timeouts_name_verifiers(self) -> RewardConfig:
        from rewards import registry

        registry.check_names(self.timeouts, self.plugins)
        for name, seconds in self.timeouts.items():
            if not SHORTEST_S <= seconds < 3600:
                raise ValueError(
                    f"timeouts.{name} is {seconds}; set seconds per completion, from {SHORTEST_S} to below 3600"
                )
        return self
