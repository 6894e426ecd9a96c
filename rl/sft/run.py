"""`rl sft`: one supervised stage on FSDP2, written as a Hugging Face folder.

Runs as `learner.ranks` local processes, or as the ranks of a surrounding torchrun when RANK and WORLD_SIZE are set.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import torch
import torch.distributed as dist

from rl.batch.sequences import ImageTable, MicroBatch
from rl.config.base import save_config
from rl.config.sft import SFTConfig
from rl.errors import DataError, DivergenceError
from rl.learner.batches import MicroBatcher, in_step
from rl.learner.build import build_strategy
from rl.learner.export import export_hf
from rl.learner.ranks import all_reduce_sum, close_ranks, free_port, init_ranks
from rl.learner.step import Skips, optimizer_step
from rl.learner.strategy import Strategy
from rl.metrics.console import progress
from rl.metrics.tracker import Tracker
from rl.models.encoder import PromptEncoder
from rl.models.policy import Policy, TokenScores
from rl.sft.data import SFTRow, batches, load_rows


def check(config: SFTConfig) -> list[str]:
    """Problems that would stop `run`, for --dry-run."""
    wanted = {"model": config.model, "data.path": config.data.path, "data.heldout": config.data.heldout}
    found = [f"{key} {value} does not exist" for key, value in wanted.items() if value and not Path(value).exists()]
    return found + config.tracker.problems()


def run(config: SFTConfig) -> Path:
    """Train one stage; returns the folder with the new weights (`config.out`)."""
    if "WORLD_SIZE" in os.environ and "RANK" in os.environ:
        _train(int(os.environ["RANK"]), config, os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
    elif config.learner.ranks == 1:
        _train(0, config, "127.0.0.1", free_port())
    else:
        torch.multiprocessing.spawn(_train, (config, "127.0.0.1", free_port()), nprocs=config.learner.ranks)
    return Path(config.out)


def _train(rank: int, config: SFTConfig, address: str, port: int) -> None:
    device = init_ranks(rank, config.learner.ranks, address, port, config.learner)
    try:
        torch.manual_seed(config.seed)
        learner = config.learner
        strategy, trained = build_strategy(config.model, config.trainable, learner, config.steps, device)
        model = strategy.policy.model
        encoder, images = PromptEncoder(config.model, config.data.prompts), ImageTable()
        rows = load_rows(config.data.path, config.data, encoder, model, images)
        heldout = []
        if config.data.heldout:
            limit = config.data.heldout_rows
            heldout = load_rows(config.data.heldout, config.data, encoder, model, images, limit)
        if rank == 0:
            save_config(config, Path(config.out) / "sft_config.yaml")
            print(f"sft {config.out}: {len(rows)} rows, {trained / 1e6:.2f}M parameters learn")
        batcher = MicroBatcher(config.learner, strategy.policy, encoder.pad_id, device)
        _fit(rank, config, strategy, rows, heldout, images, batcher)
        export_hf(strategy, config.model, config.out)()
        dist.barrier()
    finally:
        close_ranks()


def _fit(
    rank: int,
    config: SFTConfig,
    strategy: Strategy,
    rows: list[SFTRow],
    heldout: list[SFTRow],
    images: ImageTable,
    batcher: MicroBatcher,
) -> None:
    samples = [row.sample for row in rows]
    order = batches(rows, config.data.weights, config.batch_size, config.seed)
    tracker = Tracker.from_config(Path(config.out), config.tracker) if rank == 0 else None
    start = time.monotonic()
    skips = Skips(config.learner.optimizer.max_skipped_in_a_row)
    tokens = skipped = 0
    with progress(f"sft {Path(config.out).name}", config.steps, enabled=rank == 0) as bar:
        for step in range(1, config.steps + 1):
            chosen = [samples[i] for i in next(order)]
            normaliser = sum(sample.trained_tokens for sample in chosen)
            if normaliser == 0:
                raise DataError(f"step {step}: none of the batch's rows has a token to train on; check their solutions")
            micro = batcher.of_all(chosen, images, rank, config.learner.ranks)

            def loss_fn(_: MicroBatch, scores: TokenScores, normaliser: int = normaliser) -> torch.Tensor:
                return -scores.logprobs.sum() / normaliser

            try:
                loss, norm = optimizer_step(strategy, micro, loss_fn, config.learner.optimizer.clip_norm)
                skips.made()
            except DivergenceError as exc:
                skips.left_out(exc)
                loss, norm, skipped = 0.0, 0.0, skipped + 1
            tokens += sum(batch.tokens for batch in micro)
            bar.advance()
            if step % config.log_every == 0 or step == config.steps:
                summed = all_reduce_sum({"loss": loss, "tokens": tokens}, batcher.device)
                elapsed = time.monotonic() - start
                row = {
                    "loss": summed["loss"],
                    "grad_norm": norm,
                    "updates/skipped": skipped,
                    "lr": float(strategy.schedule.get_last_lr()[0]),
                    "time_s": elapsed,
                    "tokens_per_s": summed["tokens"] / elapsed,
                }
                if heldout and (step % config.eval_every == 0 or step == config.steps):
                    row |= exact_match(rank, config, strategy.policy, heldout, images, batcher)
                if tracker:
                    tracker.log(step, row)
                    bar.describe(" ".join(f"{k} {v:.3g}" for k, v in row.items() if "accuracy" in k or k == "loss"))
    if tracker:
        tracker.close()


@torch.no_grad()
def exact_match(
    rank: int,
    config: SFTConfig,
    policy: Policy,
    rows: list[SFTRow],
    images: ImageTable,
    batcher: MicroBatcher,
) -> dict[str, float]:
    """Share of held-out responses that greedy decoding would reproduce exactly, per source.

    Greedy decoding reproduces a response exactly when each of its tokens is the most likely one after those before it,
    so one forward pass answers without sampling.
    """
    samples = [row.sample for row in rows]
    sources = sorted({row.source for row in rows})
    counts = {f"{kind}/{source}": 0.0 for source in sources for kind in ("right", "all")}
    for batch, counted in in_step(batcher.of_all(samples, images, rank, config.learner.ranks)):
        top1 = policy(batch).top1
        if not counted:
            continue
        wrong = torch.bincount(batch.sequence, weights=(~top1).double(), minlength=len(batch.index))
        for i, misses in zip(batch.index, wrong.tolist(), strict=True):
            counts[f"all/{rows[i].source}"] += 1
            counts[f"right/{rows[i].source}"] += misses == 0
    dist.barrier()
    total = all_reduce_sum(counts, batcher.device)
    return {f"accuracy/{source}": total[f"right/{source}"] / total[f"all/{source}"] for source in sources}
