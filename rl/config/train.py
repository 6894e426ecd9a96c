"""Config of `rl train`: asynchronous RL with a rollout pool, reward workers and a learner."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from rl.config.base import Seed, Steps, StrictModel
from rl.config.checkpoint import CheckpointConfig
from rl.config.curriculum import CurriculumConfig
from rl.config.data import PromptConfig
from rl.config.learner import LearnerConfig
from rl.config.metrics import TrackerConfig
from rl.config.objective import AdvantageConfig, FilterConfig, LossConfig
from rl.config.rollout import RewardConfig, RolloutConfig
from rl.config.sync import SyncConfig


class TrainDataConfig(StrictModel):
    """Prompts to train and evaluate on."""

    train: str
    """Dataset whose prompts are trained on, in the RL-172K layout."""
    eval: str | None = None
    """Dataset of the evaluations; null makes none."""
    on_bad_row: Literal["raise", "skip"] = "raise"
    """A row that can't be used ends the run, or is left out."""
    prompts: PromptConfig = PromptConfig()
    curriculum: CurriculumConfig | None = None
    """Which prompts are asked for when; null goes through all of them in a seeded order."""


class AlgoConfig(StrictModel):
    """Group size, staleness and objective."""

    prompts_per_step: int = Field(32, ge=1)
    """Groups per optimizer step (B)."""
    group_size: int = Field(16, ge=2)
    """Completions per prompt."""
    max_staleness: int = Field(4, ge=0)
    """S: versions by which the oldest trained token may be behind. 0 is exactly synchronous."""
    late_groups: Literal["drop", "wait"] = "drop"
    """What becomes of a group whose completions take more than S steps: `drop` it, with the fate `stale`, and sample
    its prompt again, so that no completion holds a step up; or `wait` for it in the last step that may train it, so
    that the longest completions are not the ones that are never learned from."""
    updates_per_step: int = Field(1, ge=1)
    """Optimizer updates per step, each on its share of the groups."""
    loss: LossConfig = LossConfig()
    advantages: AdvantageConfig = AdvantageConfig()
    min_valid_rewards: int = Field(2, ge=2)
    """Groups with fewer rewards that have a value get the fate `failed`."""
    filters: FilterConfig = FilterConfig()

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

    @model_validator(mode="after")
    def _objective_fits(self) -> AlgoConfig:
        proximal, covariance = self.loss.correction.proximal, self.loss.covariance
        if self.updates_per_step == 1 and proximal == "interpolate":
            raise ValueError(
                "with updates_per_step 1 the proximal policy is the current one and there is nothing to interpolate; "
                "raise updates_per_step, or set loss.correction.proximal: recompute"
            )
        if self.updates_per_step == 1 and proximal == "recompute" and covariance and covariance.control == "kl_cov":
            raise ValueError(
                "kl_cov penalises |current - proximal|, which is 0 in the only update of a step; raise "
                "updates_per_step, set loss.correction.proximal: behaviour with level: none, or use clip_cov"
            )
        return self


class EvalDuringConfig(StrictModel):
    """Evaluations of a run; one is made before the first and one after the last step."""

    k: int = Field(8, ge=1)
    """Completions per prompt, for mean@k and Pass@k."""
    temperature: float = Field(1.0, gt=0, le=2)
    """Of these completions."""
    seed: Seed = 1234
    """Of these completions; apart from the run's, so that runs can be compared."""
    every: int | None = Field(None, ge=1)
    """Steps between further evaluations."""
    examples: int = Field(12, ge=0)
    """Samples whose completions are kept for the report."""


class ProbeConfig(StrictModel):
    """After each push the engine's logprobs of fixed sequences are compared with the learner's."""

    prompts: int = Field(8, ge=1)
    """How many sequences are compared."""
    threshold: float = Field(1e-4, gt=0)
    """Mean |difference| in nats above which the run stops. About 1e-4 for fp32; bf16 differs by 0.05 to 0.2."""


class RecordConfig(StrictModel):
    """Steps whose batch, and the state before it, are kept in `records` of the run folder for `rl replay`. A record
    takes the room of a checkpoint and of the step's images."""

    every: int | None = Field(None, ge=1)
    """Steps between records; null makes none."""
    steps: tuple[int, ...] = ()
    """Further steps to record."""

    def due(self, step: int) -> bool:
        """Whether a step is to be recorded."""
        return step in self.steps or (self.every is not None and step % self.every == 0)


class StarvationConfig(StrictModel):
    """How many prompts in a row may come to nothing before the run ends and says why.

    Counted in capacities of `algo.prompts_per_step` * (`algo.max_staleness` + 1) groups, which is what is under way at
    once; the first one that comes to nothing is a warning.
    """

    failed: int = Field(3, ge=1)
    """Capacities' worth of prompts that may fail: nothing is learned by waiting for a grader or an engine that refuses
    all of them."""
    filtered: int = Field(10, ge=1)
    """Capacities' worth of groups that may be filtered; a capacity below 40 groups counts as 40 here. More than may
    fail, since late in a run most groups are all right, rightly: where one in fifty is left to train on, 400 in a row
    without one come once in 3,000 times, and 1,600 once in 10^14."""


class TrainConfig(StrictModel):
    """One RL run."""

    command: Literal["train"] = "train"
    model: str
    """Folder of the model to start from, in the layout of transformers."""
    out: str
    """Folder of the run: config, metrics, evaluations, checkpoints, report."""
    seed: Seed = 0
    """Of the order of prompts and of sampling."""
    steps: Steps
    """Optimizer steps, and versions of the weights."""
    trainable: tuple[str, ...] = Field(("all",), min_length=1)
    """What learns: all, vision, projector, language, or globs over parameter names; `!glob` takes away."""
    data: TrainDataConfig
    rollout: RolloutConfig = RolloutConfig()
    rewards: RewardConfig = RewardConfig()
    learner: LearnerConfig = LearnerConfig()
    sync: SyncConfig = SyncConfig()
    algo: AlgoConfig = AlgoConfig()
    evaluation: EvalDuringConfig = EvalDuringConfig()
    probe: ProbeConfig = ProbeConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    record: RecordConfig = RecordConfig()
    tracker: TrackerConfig = TrackerConfig()
    stall_timeout_s: float = Field(1800, gt=0)
    """Longest time without a finished group or step before the run stops with the cause. Set it above the time that
    the learner takes to read a checkpoint, or to hand one over to be written (with `checkpoint.background` off: to
    write one): each is held to it, too."""
    starvation: StarvationConfig = StarvationConfig()
    ray_address: str | None = None
    """Cluster to join: an address, `auto`, or null for the surrounding job's cluster or else a local one."""

    @model_validator(mode="after")
    def _one_way_to_train(self) -> TrainConfig:
        self.learner.check_trainable(self.trainable)
        return self

    @model_validator(mode="after")
    def _nccl_has_gpus(self) -> TrainConfig:
        if self.sync.transport == "nccl" and not (self.learner.gpus_per_rank and self.rollout.gpus_per_worker):
            raise ValueError(
                f"sync.transport nccl goes from GPU to GPU; got learner.gpus_per_rank {self.learner.gpus_per_rank:g}, "
                f"rollout.gpus_per_worker {self.rollout.gpus_per_worker:g}; set both, or sync.transport: gloo"
            )
        return self

    @model_validator(mode="after")
    def _warmup_ends(self) -> TrainConfig:
        self.learner.optimizer.check_warmup(self.steps * self.algo.updates_per_step)
        return self

    @model_validator(mode="after")
    def _ranks_have_groups(self) -> TrainConfig:
        groups = self.algo.prompts_per_step // self.algo.updates_per_step
        if groups < self.learner.ranks:
            raise ValueError(
                f"an update has {groups} groups and the learner {self.learner.ranks} ranks; every rank needs a group: "
                "raise algo.prompts_per_step or lower learner.ranks"
            )
        return self

    @model_validator(mode="after")
    def _overlong_fits(self) -> TrainConfig:
        overlong, limit = self.algo.filters.overlong, self.rollout.sampling.max_tokens
        if overlong is not None and overlong.buffer > limit:
            raise ValueError(
                f"algo.filters.overlong.buffer {overlong.buffer} exceeds rollout.sampling.max_tokens {limit}: even an "
                "empty completion would be punished; lower the buffer"
            )
        return self
