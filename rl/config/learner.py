"""Configs of the optimiser and of how the learner is spread over devices."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from rl.config.base import StrictModel
from rl.config.faults import PingConfig
from rl.config.placement import PlacedConfig

Decay = Annotated[float, Field(ge=0, lt=1)]


class OptimizerConfig(StrictModel):
    """The optimizer with warm-up and a schedule; `clip_norm` bounds the global gradient norm."""

    name: Literal["adamw", "muon"] = "adamw"
    """`muon` orthogonalises the momentum of weight matrices; embeddings, norms and biases get AdamW at the same lr."""
    lr: float = Field(2e-6, gt=0, le=10)
    """Learning rate after the warm-up."""
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    """Decay of AdamW's two moments."""
    momentum: float = Field(0.95, ge=0, lt=1)
    """Of `muon`'s matrices."""
    eps: float = Field(1e-8, gt=0)
    """Added to the root of AdamW's second moment."""
    weight_decay: float = Field(0.01, ge=0)
    """Decoupled: lr times this is taken off a weight at every update."""
    clip_norm: float = Field(1.0, gt=0)
    """A gradient with a larger global norm is scaled down to it."""
    max_skipped_in_a_row: int = Field(0, ge=0)
    """Updates with a loss or gradient that is not finite which may be left out, one after another, before the run
    stops. `updates/skipped` counts them; their groups count as trained."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """`linear` and `cosine` fall to `final_lr_fraction` of lr at the last step."""
    warmup_steps: int = Field(0, ge=0)
    """Updates over which lr grows linearly from 0."""
    final_lr_fraction: float = Field(0.0, ge=0, le=1)
    """Share of lr at the last step of `linear` and `cosine`."""

    def check_warmup(self, updates: int) -> None:
        """Raise `ValueError` where a run of so many updates would end within the warm-up."""
        if self.warmup_steps > updates:
            raise ValueError(
                f"learner.optimizer.warmup_steps {self.warmup_steps} is more than the {updates} updates of the run, so "
                f"lr would never reach {self.lr:g}; set warmup_steps to {updates} or less, or raise steps"
            )


class FSDPConfig(StrictModel):
    """How parameters are sharded over the learner's ranks."""

    wrap: Literal["root", "blocks"] = "blocks"
    """`blocks` shards each transformer block by itself (large models); `root` gathers all at once (small ones)."""
    param_dtype: Literal["float32", "bfloat16"] = "float32"
    """Dtype of forward and backward; master weights and reduction stay float32."""
    reshard_after_forward: bool = True
    """Free a block's gathered parameters between forward and backward: less memory, one more gather."""
    cpu_offload: bool = False
    """Keep master weights, gradients and optimizer state in host memory and update them there."""
    meta_init: bool = False
    """Build the model without its numbers and send each rank its shards from rank 0, which alone reads the folder; by
    default every rank reads it whole. For models that the hosts can't hold once per rank."""


class DeepSpeedConfig(StrictModel):
    """ZeRO (arXiv 1910.02054) as DeepSpeed does it. Every rank reads the model whole before it is spread."""

    stage: Literal[2, 3] = 2
    """2 spreads gradients and optimizer state over the ranks, 3 the parameters, too."""
    param_dtype: Literal["float32", "bfloat16"] = "float32"
    """Dtype of forward and backward; master weights stay float32."""
    cpu_offload: bool = False
    """Keep master weights and optimizer state in host memory and update them there."""


class LoraConfig(StrictModel):
    """Low-rank adapters (arXiv 2106.09685) on a frozen model; engines get the merged weights."""

    rank: int = Field(16, ge=1)
    """Of each adapter's two factors."""
    alpha: float = Field(32.0, gt=0)
    """The adapter's product is scaled by alpha / rank."""
    targets: tuple[str, ...] = Field(("*_proj",), min_length=1)
    """Globs over names of linear layers; the default covers attention and MLP of the language model. The output head
    is never among them."""


class LogitsConfig(StrictModel):
    """How the language head's logits become logprobs: tile by tile, never all at once. Changes no result."""

    tile_mib: float = Field(64, gt=0)
    """Memory of a tile in MiB. Larger tiles are larger matrix products, which may keep a GPU busier; CPUs gain nothing
    from them."""
    compile: bool = False
    """Fuse the arithmetic on a tile with torch.compile: pays on GPUs, after a minute at the first step."""


class LearnerConfig(PlacedConfig):
    """Ranks, micro-batches, memory and optimizer of the learner."""

    ranks: int = Field(1, ge=1)
    """One process per device or core."""
    threads: int = Field(1, ge=1)
    """CPU threads per rank."""
    gpus_per_rank: float = Field(0, ge=0)
    """0 runs on CPU over gloo; 1 runs on a GPU over NCCL."""
    packing: bool = True
    """Micro-batches of one row, sequence after sequence, in place of a row for each with padding."""
    tokens_per_microbatch: int = Field(6144, ge=1)
    """Visual tokens counted, and padding where there is any; a longer sequence gets a micro-batch of its own."""
    max_sequence_tokens: int | None = Field(None, ge=1)
    """A sequence longer than this stops the run; none does when null."""
    logits: LogitsConfig = LogitsConfig()
    strategy: Literal["fsdp2", "deepspeed"] = "fsdp2"
    """What spreads the model over the ranks."""
    activation_checkpointing: bool = False
    """Keep each block's input alone and compute the rest again in the backward pass: a third more work, far less
    memory."""
    lora: LoraConfig | None = None
    """Train adapters in place of the model's own parameters."""
    fsdp: FSDPConfig = FSDPConfig()
    deepspeed: DeepSpeedConfig = DeepSpeedConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    faults: PingConfig = PingConfig()

    def check_trainable(self, trainable: tuple[str, ...]) -> None:
        """Raise ValueError where module groups are named beside adapters."""
        if self.lora is not None and trainable != ("all",):
            raise ValueError(
                f"with learner.lora the adapters alone learn, and trainable {list(trainable)} would be ignored; "
                "leave trainable out and name layers in learner.lora.targets"
            )

    @model_validator(mode="after")
    def _settings_of_the_strategy(self) -> LearnerConfig:
        if self.strategy == "fsdp2" and self.deepspeed != DeepSpeedConfig():
            raise ValueError("strategy is fsdp2, so the deepspeed settings would be ignored; set strategy: deepspeed")
        if self.strategy == "deepspeed" and self.fsdp != FSDPConfig():
            raise ValueError(
                "strategy is deepspeed, so the fsdp settings would be ignored; leave them out. deepspeed.cpu_offload "
                "offloads; there is no meta_init"
            )
        if self.strategy == "deepspeed" and self.optimizer.name == "muon":
            raise ValueError(
                "deepspeed flattens parameters, and muon needs their matrices; set optimizer.name: adamw or strategy: "
                "fsdp2"
            )
        return self
