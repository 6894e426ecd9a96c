"""`rl sft`: one supervised stage on the learner's step, written as a Hugging Face folder.

    mixture of rows -> feeder (a step ahead) -> optimizer step -> metrics, checkpoints -> weights in `out`

Runs as `learner.ranks` local processes, or as the ranks of a surrounding torchrun when RANK and WORLD_SIZE are set.
"""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist

from rl.batch.sequences import MicroBatch
from rl.checkpoint_folder import Checkpoint, checkpoint_before, complete_checkpoints, set_aside_newer
from rl.config.base import read_yaml, save_config
from rl.config.sft import SFTConfig
from rl.errors import CheckpointError, ConfigError, DataError, DivergenceError, StoppedError, TornCheckpointError
from rl.learner.batches import MicroBatcher
from rl.learner.build import build_strategy
from rl.learner.export import export_hf
from rl.learner.ranks import all_reduce_sum, close_ranks, init_ranks
from rl.learner.step import Skips, optimizer_step
from rl.learner.strategy import Strategy
from rl.metrics.console import Meter, progress
from rl.metrics.files import METRICS
from rl.metrics.tracker import Tracker, check_rows
from rl.models.encoder import PromptEncoder
from rl.models.policy import TokenScores
from rl.run_folder import check_steps, claimed, compare_settings, folder_problems
from rl.sft.checkpoints import STATE_KEYS, Checkpoints, find
from rl.sft.encode import RowEncoder, weights_of
from rl.sft.evaluate import exact_match
from rl.sft.feeder import Feeder, PixelStore, StepInput
from rl.sft.processes import Stop, run_ranks, surrounding_rank
from rl.sft.sources import SKIPPED, SkipLog, heldout_rows, make_mixture

CONFIG = "sft_config.yaml"


def check(config: SFTConfig) -> list[str]:
    """Problems that would stop `run`, for --dry-run."""
    wanted = {"model": config.model, "data.heldout": config.data.heldout}
    names = ["data.path"] if config.data.path else [f"data.mix.{i}.path" for i in range(len(config.data.mix))]
    wanted |= {name: part.path for name, part in zip(names, config.data.parts(), strict=True)}
    found = [f"{key} {value} does not exist" for key, value in wanted.items() if value and not Path(value).exists()]
    same = [key for key, value in wanted.items() if value and Path(value).resolve() == Path(config.out).resolve()]
    found += [f"out {config.out} is the folder of {key}, which would be written over; set another" for key in same]
    return found + folder_problems(config.out) + config.tracker.problems()


def run(config: SFTConfig, resume: bool = False) -> Path:
    """Train one stage; returns the folder with the new weights (`config.out`).

    Raises:
        StoppedError: SIGTERM or Ctrl-C came; a checkpoint of the last step is written.
        CheckpointError: there is nothing to resume, or it does not fit.
        DataError, DivergenceError, ConfigError: as their messages say.
    """
    out, leads = Path(config.out), surrounding_rank() in (None, 0)
    if resume and not out.is_dir():
        raise CheckpointError(f"{out} does not exist, so there is nothing to resume; start without --resume")
    with claimed(out) if leads else nullcontext():
        if leads and not resume and ((out / METRICS).exists() or complete_checkpoints(out)):
            remedy = "continue it with --resume" if complete_checkpoints(out) else "it has no checkpoint: remove it"
            raise ConfigError(f"{out} holds a run already; {remedy}, or set another `out`")
        found = find(out) if resume else None
        if leads and found is not None:
            check_rows(out, found.state["rows"])
            if (out / CONFIG).is_file():
                compare_settings(read_yaml(out / CONFIG), config)
            check_steps(config.out, config.steps, found.state["step"])
        stop = Stop()
        run_ranks(_train, config.learner.ranks, stop, (config, found))
        if leads and (out / SKIPPED).exists():
            count = (out / SKIPPED).read_text(encoding="utf-8").count("\n")
            print(f"sft {out}: {count} rows can't be used and were left out; {out / SKIPPED} says which and why")
        if stop.stopped_after is not None:
            raise StoppedError(f"stopped after step {stop.stopped_after} of {config.steps}; go on with --resume")
    return out


def _train(rank: int, address: str, port: int, stop: Stop, config: SFTConfig, found: Checkpoint | None) -> None:
    """One rank, from its start to the weights on disk."""
    device = init_ranks(rank, config.learner.ranks, address, port, config.learner)
    try:
        stage = _Stage(rank, config, found, stop, device)
        try:
            finished = stage.fit()
        finally:
            stage.close()
        if finished:
            export_hf(stage.strategy, config.model, config.out)()
        dist.barrier()
    finally:
        close_ranks()


@dataclass
class _Sums:
    """Of this rank since the run began, resumptions included."""

    tokens: float = 0.0
    skipped: float = 0.0
    """Updates."""
    seconds: float = 0.0
    """Of earlier processes."""


class _Stage:
    """What one rank holds between steps. All ranks make the same calls."""

    def __init__(
        self, rank: int, config: SFTConfig, found: Checkpoint | None, stop: Stop, device: torch.device
    ) -> None:
        torch.manual_seed(config.seed)
        self.rank, self.config, self.stop, self.device = rank, config, stop, device
        out, data, learner = Path(config.out), config.data, config.learner
        self.strategy: Strategy
        self.strategy, trained = build_strategy(config.model, config.trainable, learner, config.steps, device)
        encoder = PromptEncoder(config.model, data.prompts)
        batcher = MicroBatcher(learner, self.strategy.policy, encoder.pad_id, device)
        self.skip_log = SkipLog(out, writes=rank == 0)
        rows = RowEncoder(encoder, self.strategy.policy.model, learner.max_sequence_tokens)
        self.mixture = make_mixture(data, rows, config.seed, self.skip_log)
        self.heldout = heldout_rows(data, rows, self.skip_log.common)
        report = self.skip_log.own if data.on_bad_row == "skip" else None
        pixels = [PixelStore(encoder, int(mib * 2**20), report) for mib in (data.image_cache_mib, 0)]
        make = (self.mixture, batcher)
        self.feeder = Feeder(*make, pixels[0], config.batch_size, rank, learner.ranks)
        self.evaluator = Feeder(*make, pixels[1], config.batch_size, rank, learner.ranks)
        self.skips = Skips(learner.optimizer.max_skipped_in_a_row)
        self.sums, self.step = _Sums(), 0
        if found is not None:
            found = self._restore(found)
        self.checkpoints = Checkpoints(out, config.checkpoint, self.strategy, rank, self.step)
        self.tracker: Tracker | None = None
        if rank == 0:
            save_config(config, out / CONFIG)
            if found is not None:
                set_aside_newer(found.folder)
            self.tracker = Tracker.from_config(out, config.tracker, found.state["rows"] if found else None)
            total = sum(part.rows.total for part in self.mixture.parts)
            print(f"sft {out}: {total} rows, {trained / 1e6:.2f}M parameters learn", flush=True)
        self._started = time.monotonic()

    def fit(self) -> bool:
        """Train to the last step, or the end of the data; False if the run was asked to stop before."""
        config, asked = self.config, False
        with progress(f"sft {Path(config.out).name}", config.steps, enabled=self.rank == 0) as bar:
            bar.advance(self.step)
            current = self.feeder.take() if self.step < config.steps else None
            if current is None and self.step == 0:
                raise DataError(
                    f"the data ends before a batch has a usable row for each of {config.learner.ranks} ranks"
                )
            while current is not None:
                self.step += 1
                row, asked = self._update(current)
                bar.advance()
                asked = asked and self.step < config.steps
                following = None if asked or self.step == config.steps else self.feeder.take()
                ends = following is None and not asked
                if self.step % config.log_every == 0 or following is None:
                    self._log(row, current, bar, evaluate=ends or self.step % config.eval_every == 0)
                if self.checkpoints.due(self.step) or following is None:
                    self._save(current)
                current = following
        self.checkpoints.wait()
        if asked:
            self.stop.stopped(self.step)
        return not asked

    def close(self) -> None:
        for feeder in (self.feeder, self.evaluator):
            feeder.close()
        if self.tracker is not None:
            self.tracker.close()

    def _update(self, given: StepInput) -> tuple[dict[str, float], bool]:
        """One optimizer step; returns loss and norm, and whether any rank was asked to stop."""
        weight = float(sum(given.rows[i].weights.sum() for batch in given.micro for i in batch.index))
        total = all_reduce_sum({"weight": weight, "stop": float(self.stop.asked)}, self.device)
        normaliser = total["weight"]
        if normaliser == 0:
            raise DataError(f"step {self.step}: no row of the batch has a token to train on; look at {SKIPPED}")

        def loss_fn(batch: MicroBatch, scores: TokenScores) -> torch.Tensor:
            weights = weights_of(given.rows, batch)
            return -(weights * scores.logprobs).sum() / normaliser

        try:
            loss, norm = optimizer_step(self.strategy, given.micro, loss_fn, self.config.learner.optimizer.clip_norm)
            self.skips.made()
        except DivergenceError as exc:
            self.skips.left_out(exc)
            loss, norm, self.sums.skipped = 0.0, 0.0, self.sums.skipped + 1
        self.sums.tokens += sum(batch.tokens for batch in given.micro)
        return {"loss": loss, "grad_norm": norm}, total["stop"] > 0

    def _log(self, row: dict[str, float], given: StepInput, bar: Meter, evaluate: bool) -> None:
        local = {"loss": row["loss"], "tokens": self.sums.tokens, "rows": float(self.skip_log.count)}
        summed, seconds = all_reduce_sum(local, self.device), self._seconds()
        row = row | {
            "loss": summed["loss"],
            "updates/skipped": self.sums.skipped,
            "rows/skipped": summed["rows"],
            "lr": float(self.strategy.schedule.get_last_lr()[0]),
            "time_s": seconds,
            "tokens_per_s": summed["tokens"] / seconds,
        }
        row |= {f"epoch/{name}": value for name, value in given.progress.items()}
        if self.heldout and evaluate:
            row |= exact_match(self.strategy.policy, self.heldout, self.evaluator)
        if self.tracker is not None:
            self.tracker.log(self.step, row)
            shown = {key: value for key, value in row.items() if "accuracy" in key or key == "loss"}
            bar.describe(" ".join(f"{key} {value:.3g}" for key, value in shown.items()))

    def _save(self, given: StepInput) -> None:
        """A checkpoint of this moment; all that it says of the data is what was trained, not what was prepared."""
        tokens = all_reduce_sum({"tokens": self.sums.tokens}, self.device)["tokens"]
        state = {
            "step": self.step,
            "data": given.state,
            "rows": self.tracker.mark(self.step) if self.tracker is not None else {},
            "tokens": tokens,
            "skipped": self.sums.skipped,
            "seconds": self._seconds(),
        }
        self.checkpoints.save(self.step, state)

    def _restore(self, found: Checkpoint) -> Checkpoint:
        """Load a checkpoint, or if it is torn the one before it; returns the one that was loaded."""
        try:
            self.step = self.strategy.load(found.folder / "learner")
        except TornCheckpointError as exc:
            return self._restore(checkpoint_before(found, exc, STATE_KEYS))
        state = found.state
        self.mixture.load_state_dict(state["data"])
        tokens = state["tokens"] if self.rank == 0 else 0.0
        self.sums = _Sums(tokens, state["skipped"], state["seconds"])
        return found

    def _seconds(self) -> float:
        return self.sums.seconds + time.monotonic() - self._started
