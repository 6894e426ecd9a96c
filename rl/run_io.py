"""What a run writes: metrics, timeline, fates, evaluations and checkpoints, all below its folder."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rl import recording
from rl.checkpoint_folder import CHECKPOINTS, Checkpoint, begin, complete, latest
from rl.cluster import RewardClient, RolloutPool
from rl.config.base import save_config
from rl.config.rollout import SamplingConfig
from rl.config.train import TrainConfig
from rl.data.store import ProfileRequest, PromptSource
from rl.errors import DataError
from rl.eval.runner import attempt_all, attempt_seed, evaluate, group_seed
from rl.failures import describe_failure
from rl.finished import describe, described, share_of
from rl.fleet import Fleet
from rl.learner_group import LearnerGroup
from rl.ledger import FATES, Ledger
from rl.metrics.console import RunTable, waiting_line
from rl.metrics.files import CONFIG
from rl.metrics.tracker import Tracker
from rl.records import ScoredGroup
from rl.rollout.engine import EngineLoad
from rl.watch import waiting

logger = logging.getLogger(__name__)

STATE_KEYS = {"step", "started", "prompts", "ledger", "requeued", "rewards", "rows"}


class RunIO:
    """Times are seconds since `started` (Unix); a resumed run keeps the first start."""

    def __init__(self, config: TrainConfig, tracker: Tracker, table: RunTable, started: float) -> None:
        self.config, self.tracker, self.table = config, tracker, table
        self.started = started
        self.eval_ids: tuple[str, ...] = ()
        self._last_step = time.time()
        self._lost = 0

    def start_clock(self) -> None:
        """The first step's time counts from here."""
        self._last_step = time.time()

    def timeline(self, actor: str, phase: str, start: float, end: float, step: int | None = None) -> None:
        """Unix times in, seconds since the start out."""
        end = max(start, end)  # clocks are set back now and then, and workers' are others
        self.tracker.timeline(actor, phase, start - self.started, end - self.started, step)

    def rollout_activity(self, busy: Mapping[str, Sequence[tuple[float, float]]], step: int) -> dict[str, float]:
        """Write when each engine computed, by name; returns their share of the time since the last step."""
        window = time.time() - self._last_step
        total = 0.0
        for name, intervals in busy.items():
            for start, end in intervals:
                self.timeline(name, "generate", start, end, step)
                total += min(end - start, end - self._last_step) if end > self._last_step else 0.0
        return {"time/rollout_busy_fraction": min(1.0, total / (window * len(busy)))}

    def changes(self, fleets: Mapping[str, Fleet], step: int) -> dict[str, float]:
        """Write when workers were down, came and went; returns how many of each kind serve, how many calls are held
        back, how many workers were replaced so far, and how many calls were made again for it."""
        for fleet in fleets.values():
            for change in fleet.drain_changes():
                self.timeline(change.name, change.phase, change.start, change.end, step)
        return {
            **{f"workers/{kind}": float(sum(m.accepts for m in fleet.members)) for kind, fleet in fleets.items()},
            "engine/held": float(sum(fleet.held for fleet in fleets.values())),
            "faults/replaced": float(sum(fleet.replaced for fleet in fleets.values())),
            "faults/reissued": float(sum(fleet.reissued for fleet in fleets.values())),
            "faults/lost_groups": float(self._lost),
        }

    def lost(self, count: int) -> None:
        """Groups whose tokens went with a node, and that are sampled again."""
        self._lost += count

    def record(self, step: int) -> str | None:
        """The folder to record a step into, if it is to be."""
        if not self.config.record.due(step):
            return None
        folder = recording.begin(Path(self.config.out), step).absolute()
        save_config(self.config, folder / CONFIG)
        return str(folder)

    async def recorded(
        self,
        step: int,
        folder: str,
        batch: Sequence[ScoredGroup],
        advantages: Sequence[Sequence[float | None]],
        metrics: Mapping[str, float],
        learner: LearnerGroup,
    ) -> None:
        """Complete the record of a step that was trained."""
        groups = [
            {
                "uid": group.meta.uid,
                "sample_id": group.meta.sample_id,
                "seed": group_seed(self.config.seed, group.meta.uid, group.meta.sample_id),
                "versions": [group.meta.oldest_version, group.meta.newest_version],
                "worker": group.meta.worker,
                "rewards": list(group.rewards),
                "advantages": list(values),
            }
            for group, values in zip(batch, advantages, strict=True)
        ]
        with waiting("record", f"step {step}"):
            digest = await learner.digest()
        outcome = {"step": step, "weights": digest, "metrics": dict(metrics), "groups": groups}
        recording.finish(Path(folder), outcome)

    def step(self, step: int, row: dict[str, Any], ledger: Ledger) -> None:
        """Write a finished step's row."""
        now = time.time()
        fates = dict.fromkeys((f"groups/{fate}" for fate in FATES), 0.0)
        for reason, count in ledger.since_mark().items():
            fates[f"groups/{reason.partition(':')[0]}"] += count
        ledger.mark()
        times = {"time_s": now - self.started, "time/step_s": now - self._last_step}
        self._last_step = now
        full = row | fates | times | {"step": step, "version": step}
        self.tracker.log(step, full)
        self.table.update(full)
        ledger.check()

    def waiting(self, seconds: float, ledger: Ledger, ready: int, needed: int, late: int) -> None:
        """Say what came of the groups since the last step, while the learner has waited for a batch for `seconds`."""
        self.table.note(waiting_line(seconds, ledger.since_mark(), ready, needed, late))

    async def evaluate(self, pool: RolloutPool, rewards: RewardClient, step: int) -> None:
        """Evaluate on `data.eval`, if there is one, and write the result."""
        if self.config.data.eval is None:
            return
        settings, start = self.config.evaluation, time.time()
        result = await evaluate(
            pool,
            rewards,
            self.config.data.eval,
            self.eval_ids,
            k=settings.k,
            sampling=SamplingConfig(
                temperature=settings.temperature, max_tokens=self.config.rollout.sampling.max_tokens
            ),
            seed=settings.seed,
            step=step,
            example_count=settings.examples,
        )
        self.tracker.eval(result)
        self.timeline("sync", "eval", start, time.time(), step)

    async def profile(
        self, pool: RolloutPool, rewards: RewardClient, request: ProfileRequest, step: int
    ) -> dict[str, tuple[int, int]]:
        """New attempts of the policy at training prompts: (right, valid) by id."""
        start, sampling = time.time(), self.config.rollout.sampling
        label, dataset = f"profile at step {step}", self.config.data.train
        seed = attempt_seed(self.config.seed, label)
        made = await attempt_all(pool, rewards, dataset, request.ids, request.attempts, sampling, seed, label)
        self.timeline("sync", "profile", start, time.time(), step)
        return {attempts.sample_id: (attempts.right, attempts.valid) for attempts in made}

    async def checkpoint(
        self,
        step: int,
        learner: LearnerGroup,
        rewards: RewardClient,
        prompts: PromptSource,
        ledger: Ledger,
        requeued: Callable[[], Sequence[str]],
        finished: Callable[[], Sequence[ScoredGroup]],
    ) -> Coroutine[Any, Any, None]:
        """Take learner and driver state at one moment; a torn write never has the name `checkpoints/step_N`.

        Returns what to await for the complete checkpoint. With `checkpoint.background` training may go on meanwhile, as
        long as the last checkpoint is complete before the next begins.
        """
        root = Path(self.config.out) / CHECKPOINTS
        final = (root / f"step_{step:06d}").absolute()
        if final.exists():
            return _nothing()  # a run resumed at its last step: the checkpoint that it was restored from
        partial = begin(final)
        with waiting("checkpoint", f"states of the reward workers, step {step}"):
            grading = await rewards.state_dict()
        groups = finished()
        state = {  # taken at one moment: rows, fates, prompts in flight and finished groups must fit together
            "step": step,
            "started": self.started,
            "prompts": prompts.state_dict(),
            "ledger": ledger.state_dict(),
            "requeued": list(requeued()),
            "rewards": grading,
            "finished": describe(groups),
            "rows": self.tracker.mark(step),
        }
        start = time.time()
        with waiting("checkpoint", f"copies of the learner's state, step {step}"):
            await learner.save(str(partial), self.config.checkpoint.background, share_of(groups))
        self.timeline("learner", "checkpoint", start, time.time(), step)
        return self._complete(learner, partial, final, state)

    async def _complete(self, learner: LearnerGroup, partial: Path, final: Path, state: dict[str, Any]) -> None:
        with waiting("checkpoint", f"files of {final.name}"):
            await learner.written()
            await asyncio.to_thread(complete, partial, final, state, self.config.checkpoint.keep)


def engine_metrics(loads: Iterable[EngineLoad]) -> dict[str, float]:
    """Sequences that decode and that wait, over all engines, and the mean share of their caches in use."""
    known = [load for load in loads if load.slots is not None]
    if not known:
        return {}
    return {
        "engine/running": float(sum(load.running for load in known)),
        "engine/waiting": float(sum(load.waiting for load in known)),
        "engine/kv_use": sum(load.kv_use for load in known) / len(known),
    }


async def _nothing() -> None:
    return None


def latest_checkpoint(run: Path) -> Checkpoint:
    """The newest whole checkpoint; see `rl.checkpoint_folder.latest` for what is raised."""
    return latest(run, STATE_KEYS)


async def finished_groups(learner: LearnerGroup, found: Checkpoint, group_size: int) -> list[ScoredGroup]:
    """The groups that waited for the learner at a checkpoint, without those of another size than groups now have.

    None where their tokens can't be read, which is warned of: they are sampled again like all that was in flight.
    """
    rows = [row for row in found.state.get("finished", []) if len(row["rewards"]) == group_size]
    if not rows:
        return []
    try:
        with waiting("restore", "finished groups"):
            return described(rows, await learner.finished(str(found.folder.absolute())))
    except Exception as exc:
        cause = describe_failure(exc)
        if not isinstance(cause, DataError):
            raise
        logger.warning("%s; %d finished groups are sampled again", cause, len(rows))
        return []
