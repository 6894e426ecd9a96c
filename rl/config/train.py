"""Config of `rl train`: asynchronous RL with a rollout pool, reward workers and a learner."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from rl.config.base import StrictModel
from rl.config.data import PromptConfig
from rl.config.learner import LearnerConfig
from rl.config.metrics import TrackerConfig
from rl.config.rollout import RewardConfig, RolloutConfig


class TrainDataConfig(StrictModel):
    """Prompts to train and evaluate on."""

    train: str
    eval: str | None = None
    on_bad_row: Literal["raise", "skip"] = "raise"
    prompts: PromptConfig = PromptConfig()


class CorrectionConfig(StrictModel):
    """How much a token counts that another policy version sampled: weight proximal / behaviour."""

    level: Literal["token", "sequence", "none"] = "token"
    """`sequence` takes the geometric mean over a response's tokens; `none` switches the weight off."""
    mode: Literal["truncate", "mask"] = "truncate"
    """Above the cap: `truncate` to it, or `mask` the token (or sequence) out."""
    cap: float = Field(5.0, gt=0)


class LossConfig(StrictModel):
    """The policy loss."""

    name: Literal["gspo", "grpo"] = "gspo"
    clip_low: float = Field(0.2, gt=0, lt=1)
    clip_high: float = Field(0.28, gt=0)
    correction: CorrectionConfig = CorrectionConfig()


class AdvantageConfig(StrictModel):
    """From rewards to advantages: (reward + bias) * scale, then within the group, then over the batch.

    Every choice of `group` subtracts the group's mean, so `bias` cancels; it is here because published recipes state
    it.
    `scale` matters for `mean` without `batch_normalise`.
    """

    bias: float = -0.5
    scale: float = 10.0
    group: Literal["mean_std", "mean"] = "mean_std"
    batch_normalise: bool = True


class AlgoConfig(StrictModel):
    """Group size, staleness and objective."""

    prompts_per_step: int = Field(32, ge=1)
    """Groups per optimizer step (B)."""
    group_size: int = Field(16, ge=2)
    """Completions per prompt."""
    max_staleness: int = Field(4, ge=0)
    """S: versions by which the oldest trained token may be behind. 0 is exactly synchronous."""
    updates_per_step: int = Field(1, ge=1)
    """Optimizer updates per step, each on its share of the groups."""
    loss: LossConfig = LossConfig()
    advantages: AdvantageConfig = AdvantageConfig()
    min_valid_rewards: int = Field(2, ge=2)
    """Groups with fewer rewards that have a value get the fate `failed`."""

    @model_validator(mode="after")
    def _updates_divide(self) -> AlgoConfig:
        if self.prompts_per_step % self.updates_per_step:
            raise ValueError(
                f"prompts_per_step {self.prompts_per_step} is not a multiple of updates_per_step "
                f"{self.updates_per_step}; every update takes the same number of groups"
            )
        if self.min_valid_rewards > self.group_size:
            raise ValueError(f"min_valid_rewards {self.min_valid_rewards} exceeds group_size {self.group_size}")
        return self


class EvalDuringConfig(StrictModel):
    """Evaluations of a run; one is made before the first and one after the last step."""

    k: int = Field(8, ge=1)
    temperature: float = Field(1.0, gt=0, le=2)
    seed: int = 1234
    every: int | None = Field(None, ge=1)
    """Steps between further evaluations."""
    examples: int = Field(12, ge=0)
    """Samples whose completions are kept for the report."""


class ProbeConfig(StrictModel):
    """After each push the engine's logprobs of fixed sequences are compared with the learner's."""

    prompts: int = Field(8, ge=1)
    threshold: float = Field(1e-4, gt=0)
    """Mean |difference| in nats above which the run stops. About 1e-4 for fp32; bf16 differs by 0.05 to 0.2."""


class CheckpointConfig(StrictModel):
    every: int | None = Field(None, ge=1)
    """Steps between checkpoints; one is always written at the end."""
    keep: int = Field(2, ge=1)


class TrainConfig(StrictModel):
    """One RL run."""

    command: Literal["train"] = "train"
    model: str
    out: str
    seed: int = 0
    steps: int = Field(ge=1)
    data: TrainDataConfig
    rollout: RolloutConfig = RolloutConfig()
    rewards: RewardConfig = RewardConfig()
    learner: LearnerConfig = LearnerConfig()
    algo: AlgoConfig = AlgoConfig()
    evaluation: EvalDuringConfig = EvalDuringConfig()
    probe: ProbeConfig = ProbeConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    tracker: TrackerConfig = TrackerConfig()
    stall_timeout_s: float = Field(1800, gt=0)
    """Longest time without a finished group or step before the run stops with the cause."""
    ray_address: str | None = None
    """Cluster to join: an address, `auto`, or null for the surrounding job's cluster or else a local one."""

    @model_validator(mode="after")
    def _ranks_have_groups(self) -> TrainConfig:
        groups = self.algo.prompts_per_step // self.algo.updates_per_step
        if groups < self.learner.ranks:
            raise ValueError(
                f"an update has {groups} groups and the learner {self.learner.ranks} ranks; every rank needs a group: "
                "raise algo.prompts_per_step or lower learner.ranks"
            )
        return self
