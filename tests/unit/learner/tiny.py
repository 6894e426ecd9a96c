"""Models of a few thousand parameters and batches for them, for this process and for ranks of its own."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from rl.algo.losses import LossInputs, gspo
from rl.batch.sequences import ImageTable, MicroBatch, TrainingSample, collate, concatenate
from rl.config.learner import LearnerConfig, LogitsConfig, OptimizerConfig
from rl.config.objective import LossConfig
from rl.config.train import TrainConfig
from rl.learner.build import build_strategy
from rl.learner.fsdp import full_tensors
from rl.learner.objective import Objective
from rl.learner.samples import RolloutSample
from rl.learner.step import LossFn, optimizer_step
from rl.learner.strategy import Strategy, make_strategy
from rl.models.policy import Policy, TokenScores, extend_positions, prompt_positions

IMAGE, VIDEO, VISION_START, VISION_END = 30, 31, 32, 33
OPTIMIZER = OptimizerConfig(lr=1e-2, eps=1e-2, weight_decay=0.1, clip_norm=0.5, schedule="linear", warmup_steps=2)
"""`eps` is large so that AdamW does not blow rounding in near-zero gradients up to whole steps."""
IMAGE_KEY = "picture"


def text_policy(seed: int = 0, layers: int = 2, tied: bool = True, logits: LogitsConfig | None = None) -> Policy:
    """A Llama with random weights: 4,560 parameters in two layers, and 640 more for a head of its own."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=40,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
        tie_word_embeddings=tied,
        initializer_range=0.3,
        attn_implementation="sdpa",
    )
    return Policy(LlamaForCausalLM(config), logits)


def vision_policy(seed: int = 0) -> Policy:
    """A Qwen3-VL of 20,880 parameters with two vision blocks, one of them feeding deepstack."""
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    torch.manual_seed(seed)
    rope = {"rope_type": "default", "mrope_section": [2, 1, 1], "mrope_interleaved": True, "rope_theta": 10000.0}
    config = Qwen3VLConfig(
        text_config=dict(
            vocab_size=40,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=8,
            max_position_embeddings=64,
            rope_parameters=rope,
            initializer_range=0.3,
        ),
        vision_config=dict(
            depth=2,
            hidden_size=16,
            intermediate_size=24,
            num_heads=2,
            out_hidden_size=16,
            patch_size=4,
            spatial_merge_size=2,
            temporal_patch_size=2,
            num_position_embeddings=16,
            deepstack_visual_indexes=[0],
            initializer_range=0.3,
        ),
        image_token_id=IMAGE,
        video_token_id=VIDEO,
        vision_start_token_id=VISION_START,
        vision_end_token_id=VISION_END,
        tie_word_embeddings=True,
        attn_implementation="sdpa",
    )
    return Policy(Qwen3VLForConditionalGeneration(config).float())


def text_samples(policy: Policy, count: int = 7) -> list[TrainingSample]:
    """Sequences of different lengths; in each, one response token in four is the environment's."""
    generator = np.random.default_rng(5)
    return [_sample(policy, generator, generator.integers(3, 28, 3 + i), [], (), 2 + i % 5) for i in range(count)]


def vision_samples(policy: Policy) -> tuple[list[TrainingSample], ImageTable]:
    """One sequence with an image of 8x8 patches (16 visual tokens), two without."""
    generator = np.random.default_rng(6)
    images = ImageTable()
    grid = torch.tensor([1, 8, 8])
    pixels = generator.standard_normal((64, 3 * 2 * 4 * 4)).astype(np.float32)
    images.add(IMAGE_KEY, torch.from_numpy(pixels), grid)
    shown = np.array([5, VISION_START, *[IMAGE] * 16, VISION_END, 6, 7])
    samples = [_sample(policy, generator, shown, [grid], (IMAGE_KEY,), 5)]
    samples += [_sample(policy, generator, generator.integers(3, 28, 4 + i), [], (), 4) for i in range(2)]
    return samples, images


def group_samples(policy: Policy) -> tuple[list[TrainingSample], ImageTable]:
    """Three completions of a prompt with two images of different shapes, two of one with the second image, one of text.

    The groups are mixed, as a plan by length mixes them.
    """
    generator = np.random.default_rng(7)
    images = ImageTable()
    grids = {"wide": torch.tensor([1, 4, 8]), "small": torch.tensor([1, 4, 4])}
    for key, grid in grids.items():
        pixels = generator.standard_normal((int(grid.prod()), 3 * 2 * 4 * 4)).astype(np.float32)
        images.add(key, torch.from_numpy(pixels), grid)
    wide, small = ([VISION_START, *[IMAGE] * count, VISION_END] for count in (8, 4))
    both, one, text = np.array([5, *wide, 9, *small, 6, 7]), np.array([*small, 11]), np.array([4, 8, 12])
    shown = {"both": ("wide", "small"), "one": ("small",), "text": ()}
    prompts = {"both": both, "one": one, "text": text}
    order = (("both", 5), ("one", 3), ("both", 2), ("text", 6), ("one", 7), ("both", 4))
    return [
        _sample(policy, generator, prompts[name], [grids[key] for key in shown[name]], shown[name], response)
        for name, response in order
    ], images


def _sample(
    policy: Policy,
    generator: np.random.Generator,
    prompt: np.ndarray,
    grids: Sequence[torch.Tensor],
    keys: tuple[str, ...],
    response: int,
) -> TrainingSample:
    positions = prompt_positions(policy.model, prompt, grids)
    return TrainingSample(
        input_ids=np.concatenate([prompt, generator.integers(3, 28, response)]).astype(np.int64),
        prompt_length=len(prompt),
        position_ids=extend_positions(positions, response),
        trained=np.arange(response) % 4 != 3,
        image_keys=keys,
    )


def cut(
    samples: Sequence[TrainingSample],
    parts: Sequence[Sequence[int]],
    images: ImageTable | None = None,
    packed: bool = False,
) -> list[MicroBatch]:
    return [concatenate(samples, part, images) if packed else collate(samples, part, 0, images) for part in parts]


def gspo_loss(sequences: int) -> LossFn:
    """GSPO against logprobs of a uniform policy; sequence i of the list has advantage 1 or -0.5 by turns."""

    def loss(batch: MicroBatch, scores: TokenScores) -> torch.Tensor:
        advantages = torch.tensor([1.0 if i % 2 == 0 else -0.5 for i in batch.index])[batch.sequence]
        behaviour = torch.full_like(scores.logprobs, -math.log(40)).detach()
        proximal = scores.logprobs.detach()
        inputs = LossInputs(scores.logprobs, proximal, behaviour, advantages, batch.sequence, len(batch.index))
        return gspo(inputs, LossConfig(), float(sequences)).loss

    return loss


def prepare(policy: Policy, wrap: str = "blocks", name: str = "adamw", **learner: Any) -> Strategy:
    """Shard over the process group, with an optimizer for 10 steps.

    Args:
        learner: keys of `LearnerConfig` to set; those of `optimizer` and `fsdp` add to this file's settings.
    """
    raw = learner | {"optimizer": {"name": name} | learner.get("optimizer", {})}
    raw["fsdp"] = {"wrap": wrap} | learner.get("fsdp", {})
    return make_strategy(policy, learner_config(**raw), 10, torch.device("cpu"))


def learner_config(**learner: Any) -> LearnerConfig:
    """With the optimizer of this file, unless told otherwise."""
    return LearnerConfig.model_validate(learner | {"optimizer": OPTIMIZER.model_dump() | learner.get("optimizer", {})})


def from_folder(path: str, trainable: Sequence[str] = ("all",), **learner: Any) -> Strategy:
    """As the learner starts: from a saved model."""
    return build_strategy(path, trainable, learner_config(**learner), 10, torch.device("cpu"))[0]


def rollouts(samples: Sequence[TrainingSample], versions: Sequence[int] = (2, 1, 0)) -> list[RolloutSample]:
    """The samples as completions of a policy near the uniform one; the learner is at version 2."""
    generator = np.random.default_rng(8)
    made = []
    for i, sample in enumerate(samples):
        count = sample.trained_tokens
        behaviour = (generator.normal(0, 0.3, count) - math.log(40)).astype(np.float32)
        of_tokens = np.full(count, versions[i % len(versions)], dtype=np.int32)
        made.append(RolloutSample(sample, behaviour, 1.0 if i % 2 == 0 else -0.5, of_tokens, 2, key=i))
    return made


def objective_step(policy: Policy, parts: Sequence[Sequence[int]], model: str, **loss: Any) -> dict[str, Any]:
    """A step of two updates on this rank's parts of the seven text samples.

    Returns:
        The gathered parameters, and under `sums` this rank's metric sums.
    """
    raw = {"model": model, "out": "o", "steps": 1, "data": {"train": "d"}}
    raw["algo"] = {"prompts_per_step": 8, "updates_per_step": 2, "loss": loss}
    config = TrainConfig.model_validate(raw)
    strategy = prepare(policy)
    objective = Objective(config, policy, torch.device("cpu"))
    everything = rollouts(text_samples(policy))
    own = sorted(i for part in parts for i in part)
    samples = [everything[i] for i in own]
    batches = cut([sample.tokens for sample in samples], [[own.index(i) for i in part] for part in parts])
    sums: defaultdict[str, float] = defaultdict(float)
    updates = [objective.prepare(samples, batches, index, sequences=7) for index in range(2)]
    for update in updates:
        loss_fn = objective.loss_fn(update, sums)
        optimizer_step(strategy, batches, loss_fn, OPTIMIZER.clip_norm, sampled=True)
    return {name: tensor.clone() for name, tensor in full_tensors(policy).items()} | {"sums": dict(sums)}


def one_step(
    policy: Policy, parts: list[MicroBatch], sequences: int, wrap: str = "blocks", name: str = "adamw", **learner: Any
) -> dict[str, torch.Tensor]:
    """Shard and make one update, see `update`."""
    return update(prepare(policy, wrap, name, **learner), parts, sequences)


def update(strategy: Strategy, parts: list[MicroBatch], sequences: int) -> dict[str, torch.Tensor]:
    """One update with gradient clipping; returns the gathered parameters, the whole loss and the norm."""
    loss, norm = optimizer_step(strategy, parts, gspo_loss(sequences), OPTIMIZER.clip_norm)
    total = torch.tensor(loss, dtype=torch.float64)
    dist.all_reduce(total)
    result = {name: tensor.clone() for name, tensor in full_tensors(strategy.policy).items()}
    return result | {"loss": total.float(), "norm": torch.tensor(norm)}
