"""One rank of the RL learner: a sharded policy, its optimiser, and the step that turns groups into a new version.

Created as a Ray actor by `rl.learner_group`. All ranks get the same calls at the same time, because every public
method below but `ping`, `written`, `reissue` and `finished` holds collectives.
"""

from __future__ import annotations

import socket
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.distributed.checkpoint.api import CheckpointException

from rl.batch.packing import CostModel
from rl.batch.plan import UpdateShare
from rl.batch.sequences import ImageTable, MicroBatch
from rl.config.train import TrainConfig
from rl.errors import CheckpointError, DivergenceError, FetchError, first_lines
from rl.finished import read_groups, write_groups
from rl.learner import randomness
from rl.learner.batches import MicroBatcher, shape_sums
from rl.learner.build import build_strategy
from rl.learner.drift import mean_drift, no_drift
from rl.learner.export import checkpoint_tensors, export_hf
from rl.learner.objective import Objective, Update
from rl.learner.ranks import all_reduce_sum, close_ranks, free_port, init_ranks
from rl.learner.samples import RolloutSample, rollout_samples
from rl.learner.step import Skips, optimizer_step
from rl.models.encoder import PromptEncoder
from rl.recording import RecordedUpdate, fetched, read_rank, write_rank
from rl.records import Group, LostGroups
from rl.sync.base import Ticket
from rl.sync.bundle import pack
from rl.sync.learner import WeightSync

REISSUE = "reissue"
"""The concurrency group in which workers ask for weights anew, whatever the learner is at."""


@dataclass(frozen=True, slots=True)
class AskLearner:
    """For `Ticket.spare`."""

    rank_0: Any

    async def __call__(self, version: int, transport: str) -> Ticket:
        try:
            ticket: Ticket = await self.rank_0.reissue.options(concurrency_group=REISSUE).remote(version, transport)
        except Exception as exc:  # Ray has many for a learner that is gone, and the worker may do without it
            cause = getattr(exc, "cause", None) or exc  # a task's error wraps what the learner raised
            raise FetchError(f"the learner has no other way: {first_lines(cause, lines=2)}") from exc
        return ticket


_STATE = "learner"
"""Folder of the learner's state, in a checkpoint and in a record."""


class LearnerRank:
    """See the module docstring."""

    def __init__(self, rank: int, config: TrainConfig) -> None:
        self.rank, self.config = rank, config
        self.version = 0
        self._sync: WeightSync | None = None
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="export")
        self._writing: list[Future[Any]] = []
        self._probe: list[RolloutSample] = []
        self._probe_groups: list[Group] = []
        self._probe_images = ImageTable()
        self._probe_batches: list[MicroBatch] = []

    def ping(self) -> None:
        """Returns, in a thread of its own: the process is not stopped, and something in it makes progress."""

    def address(self) -> tuple[str, int]:
        """Where rank 0 lets the others meet."""
        import ray

        return ray.util.get_node_ip_address(), free_port()

    def start(self, address: str, port: int) -> str:
        """Join the group, load and shard the model; returns the host's name."""
        config = self.config
        self.device = init_ranks(self.rank, config.learner.ranks, address, port, config.learner)
        torch.manual_seed(config.seed)
        self.encoder = PromptEncoder(config.model, config.data.prompts)
        total = config.steps * config.algo.updates_per_step
        self.strategy, _ = build_strategy(config.model, config.trainable, config.learner, total, self.device)
        self.policy = self.strategy.policy
        self.batcher = MicroBatcher(config.learner, self.policy, self.encoder.pad_id, self.device)
        self.objective = Objective(config, self.policy, self.device)
        self.skips = Skips(config.learner.optimizer.max_skipped_in_a_row)
        self._sync = self._make_sync() if self.rank == 0 else None
        return socket.gethostname()

    def cost_model(self) -> CostModel:
        """For balancing work over ranks."""
        return self.batcher.cost

    def publish(self) -> Ticket | None:
        """Make the current weights available to the workers; None on ranks other than 0."""
        tensors = checkpoint_tensors(self.policy, self.strategy)
        return None if self._sync is None else self._sync.publish(tensors, self.version)

    def reissue(self, version: int, transport: str) -> Ticket:
        """For workers, see `WeightSync.reissue`. Runs beside the other calls."""
        assert self._sync is not None
        return self._sync.reissue(version, transport)

    def set_probe(self, groups: list[Group]) -> np.ndarray | None:
        """Keep fixed sequences; returns their logprobs under the current weights."""
        self._probe_groups = groups
        for group in groups:
            advantages = [0.0] * len(group.rollouts)
            self._probe += rollout_samples(group, advantages, self.policy, self.encoder, self._probe_images)
        self._probe_batches = self.batcher.of_own([sample.tokens for sample in self._probe], self._probe_images)
        return self._probe_logprobs()

    def probe_groups(self) -> list[Group]:
        """What `set_probe` was given last."""
        return self._probe_groups

    def train(
        self, updates: list[UpdateShare], record: str | None = None
    ) -> tuple[dict[str, float] | LostGroups, Ticket | None, np.ndarray | None]:
        """One step: its updates, then the new version. Returns metrics, a ticket for it and the probe's logprobs.

        The ticket is None on ranks other than 0; metrics and logprobs are the same on all. Where the tokens of some
        group are gone, on whichever rank, nothing is done and `LostGroups` takes the place of the metrics.

        Args:
            record: folder that what is needed to replay the step is written into before.
        """
        started = time.time()
        groups, lost = _fetch(updates)
        if all_reduce_sum({"lost": float(len(lost))}, self.device)["lost"]:
            return LostGroups(lost), None, None
        parts = fetched(updates, groups)
        if record is not None:
            self._record(Path(record), parts)
        metrics = self._step(parts)
        staging = time.time()
        ticket = self.publish()
        metrics["sync/stage_s"] = time.time() - staging
        logprobs = self._probe_logprobs()
        metrics |= {"time/train_start": started, "time/train_end": time.time()}
        return metrics, ticket, logprobs

    def replay(self, folder: str) -> dict[str, float]:
        """Do a recorded step again, from the state before it; returns its metrics."""
        path = Path(folder)
        if (path / _STATE).is_dir():
            self.version = self.strategy.load(path / _STATE)
        with np.load(path / f"random_{self.rank}.npz", allow_pickle=False) as states:
            randomness.restore({name: torch.from_numpy(states[name]) for name in states.files})
        return self._step(read_rank(path, self.rank))

    def digest(self) -> str | None:
        """Checksum of the weights as they are published; None on ranks other than 0."""
        tensors = checkpoint_tensors(self.policy, self.strategy)
        return pack(tensors, self.version).checksum if self.rank == 0 else None

    def save(self, folder: str, background: bool, finished: UpdateShare | None = None) -> None:
        """Learner state (DCP), a Hugging Face export and `finished` groups below `folder`; `written` waits for them.

        With `background` this returns when copies are made and the next step may start.
        """
        path = Path(folder)
        state = self.strategy.save(path / _STATE, self.version, background)
        self._writing = [state, self._writer.submit(export_hf(self.strategy, self.config.model, path / "hf"))]
        if finished is not None:
            self._writing.append(self._writer.submit(_write_finished, path, finished))
        if not background:
            self.written()

    def written(self) -> None:
        """Wait for the files of the last `save`. Runs beside the other calls. Raises CheckpointError."""
        for part in self._writing:
            try:
                part.result()
            except (Exception, CheckpointException) as exc:
                raise CheckpointError(f"rank {self.rank} could not write its part of a checkpoint: {exc}") from exc

    def load(self, folder: str) -> int:
        """Restore the learner's state; returns its version."""
        self.version = self.strategy.load(Path(folder) / _STATE)
        return self.version

    def finished(self, folder: str) -> tuple[tuple[int, ...], list[Group]]:
        """The uids of the groups that `save` wrote, and the groups. Raises DataError if they can't be read."""
        groups = read_groups(Path(folder))
        return tuple(group.uid for group in groups), groups

    def close(self) -> None:
        if self._sync is not None:
            self._sync.close()
        close_ranks()

    def _make_sync(self) -> WeightSync:
        import ray

        context, config = ray.get_runtime_context(), self.config
        return WeightSync(
            config.sync,
            Path(config.out) / "weights",
            host=ray.util.get_node_ip_address(),
            workers=config.rollout.workers,
            spare=AskLearner(context.current_actor) if context.get_actor_id() else None,
        )

    def _record(self, folder: Path, parts: list[RecordedUpdate]) -> None:
        """All that `replay` reads."""
        write_rank(folder, self.rank, parts)
        states = randomness.capture()
        np.savez(folder / f"random_{self.rank}.npz", **{k: v.numpy() for k, v in states.items()})  # type: ignore[arg-type]
        if self.version > 0:  # before, the state is the model's own; and asking the optimizer for one would make it
            self.strategy.save(folder / _STATE, self.version)
            randomness.restore(states)

    def _step(self, parts: list[RecordedUpdate]) -> dict[str, float]:
        """The updates of a step; then the next version is there. Returns metrics, the same on all ranks."""
        images = ImageTable()
        samples: list[list[RolloutSample]] = []
        for part in parts:
            samples.append([])
            for each in part.groups:
                found = rollout_samples(each.group, each.advantages, self.policy, self.encoder, images, self.version)
                samples[-1] += found
        prepared = [
            self.objective.prepare(own, self.batcher.of_own([s.tokens for s in own], images), i, part.sequences)
            for i, (own, part) in enumerate(zip(samples, parts, strict=True))
        ]
        sums: defaultdict[str, float] = defaultdict(float, no_drift())
        for update in prepared:
            _add(sums, self._update(update))
        self.version += 1
        return self._metrics(sums, len(parts))

    def _update(self, update: Update) -> dict[str, float]:
        config = self.config
        sums: defaultdict[str, float] = defaultdict(float, {"loss": 0.0, "grad_norm": 0.0, "updates/skipped": 0.0})
        try:
            loss, norm = optimizer_step(
                self.strategy,
                update.batches,
                self.objective.loss_fn(update, sums),
                config.learner.optimizer.clip_norm,
                config.rollout.sampling.temperature,
                sampled=True,
            )
        except DivergenceError as exc:
            self.skips.left_out(exc)
            sums = defaultdict(float, dict.fromkeys(sums, 0.0) | {"updates/skipped": 1.0})
        else:
            self.skips.made()
            sums["loss"] += loss
            sums["grad_norm"] += norm
        _add(sums, shape_sums(update.batches, config.learner.tokens_per_microbatch))
        return sums

    def _metrics(self, sums: Mapping[str, float], updates: int) -> dict[str, float]:
        total = all_reduce_sum(sums, self.device)
        drift = mean_drift(total)
        ranks = self.config.learner.ranks
        tokens, skipped = total.pop("tokens"), total.pop("updates/skipped") / ranks
        made = max(1.0, updates - skipped)
        # The norm is that of all ranks already.
        per_update = {"loss": total.pop("loss") / made, "grad_norm": total.pop("grad_norm") / made / ranks}
        shape = {name: total.pop(f"batch/{name}") for name in ("tokens", "positions", "micro_batches", "over_budget")}
        metrics = {key: value / max(1.0, tokens) for key, value in total.items()}
        of_batches = {
            "tokens/computed": shape["tokens"],
            "batch/padding_share": 1 - shape["tokens"] / shape["positions"],
            "batch/micro_batches": shape["micro_batches"] / updates / ranks,
            "batch/over_budget": shape["over_budget"],
            "updates/skipped": skipped,
        }
        lr = float(self.strategy.schedule.get_last_lr()[0])
        return metrics | drift | per_update | of_batches | {"tokens/trained": tokens, "lr": lr}

    @torch.no_grad()
    def _probe_logprobs(self) -> np.ndarray | None:
        """float32: logprobs of all probe tokens, group after group, at temperature 1 over the whole vocabulary."""
        if not self._probe:
            return None
        parts: dict[int, torch.Tensor] = {}
        for batch in self._probe_batches:
            lengths = [self._probe[i].tokens.trained_tokens for i in batch.index]
            parts.update(zip(batch.index, self.policy(batch).logprobs.split(lengths), strict=True))
        return torch.cat([parts[i] for i in range(len(self._probe))]).cpu().numpy()


def _fetch(updates: list[UpdateShare]) -> tuple[dict[int, Group], tuple[int, ...]]:
    """The groups behind references by uid, and the uids of those that are gone."""
    import ray

    groups: dict[int, Group] = {}
    lost: list[int] = []
    columns: dict[Any, Sequence[Group] | None] = {}
    for part in (part for share in updates for part in share.groups):
        column = part.payload.column
        if column not in columns:
            try:
                columns[column] = ray.get(column)
            except ray.exceptions.ObjectLostError:
                columns[column] = None
        found = columns[column]
        if found is None:
            lost.append(part.uid)
        else:
            groups[part.uid] = found[part.payload.row]
    return groups, tuple(lost)


def _write_finished(folder: Path, share: UpdateShare) -> None:
    """Groups whose node is gone are left out, and sampled again after a resumption."""
    groups, _ = _fetch([share])
    write_groups(folder, list(groups.values()))


def _add(total: defaultdict[str, float], more: Mapping[str, float]) -> None:
    for key, value in more.items():
        total[key] += value
