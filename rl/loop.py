"""The asynchronous loop: coroutines over slots, finished groups and versions.

    prompts -> _admit: waits for a slot ............... unblocked by a release
                 |  starts one
                 v
               _rollout: worker -> rewards -> filter .. a filtered or failed group releases its slot
                 |  puts a scored group
                 v
               _train: waits for B fresh groups ....... unblocked by a put
                 |  learner step -> version v + 1
                 v
               _push: every engine swaps weights ...... releases B slots, then probes the engines

With S > 0 the push of one step overlaps the next learner step; with S = 0 it can't, because no group can be admitted
before the push has released its slots. The loop handles ids, versions, lengths, rewards and references only.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections import deque
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from typing import Any

from rl.algo.advantages import batch_advantages
from rl.algo.filters import screen
from rl.batch.plan import plan_updates
from rl.buffer import StalenessBuffer
from rl.cluster import RewardClient, RolloutPool
from rl.config.train import TrainConfig
from rl.data.store import PromptSource
from rl.errors import ActorLostError, DivergenceError, EngineError, GroupsLostError, StarvationError, SyncError
from rl.eval.runner import group_seed, sample
from rl.failures import describe_failure, failed_prompt, first_line
from rl.learner_group import LearnerGroup
from rl.ledger import Admission, Ledger
from rl.metrics.window import StepWindow
from rl.records import ScoredGroup
from rl.rollout.worker import PromptTask
from rl.run_io import RunIO, engine_metrics
from rl.starvation import Starvation
from rl.stopping import CutShortError, StopRequest, unless
from rl.watch import long_waits, waiting

logger = logging.getLogger(__name__)

_WATCH_S = 5.0
_QUIET_S = 30.0
"""When the learner has waited so long for a batch, the run says what its groups came to; and again after as long."""


class Loop:
    """State of a run between steps. `run` trains until `config.steps`; everything else is its parts."""

    def __init__(
        self,
        config: TrainConfig,
        pool: RolloutPool,
        rewards: RewardClient,
        learner: LearnerGroup,
        prompts: PromptSource,
        ledger: Ledger,
        io: RunIO,
        version: int = 0,
        pending: tuple[Admission, ...] = (),
        requeued: Sequence[str] = (),
        finished: Sequence[ScoredGroup] = (),
    ) -> None:
        self.config, self.pool, self.rewards, self.learner = config, pool, rewards, learner
        self.prompts, self.ledger, self.io = prompts, ledger, io
        self.version = version
        self.buffer = StalenessBuffer(config.algo.prompts_per_step, config.algo.max_staleness, config.algo.late_groups)
        self.buffer.restore(finished)
        self.window = StepWindow()
        for group in finished:
            self.window.finished(group)
        self._served = version
        """The last version that has reached every engine."""
        self._pending = deque(pending)
        self._requeued = deque(requeued)
        self._starvation = Starvation(config.starvation, self.buffer.capacity)
        self._progress, self._stall_counts = time.monotonic(), True
        self._waits_since: float | None = None
        self.stopping = StopRequest(config.checkpoint.stop_within_s)
        self.mid_step = False
        """The learner was left in a step that did not end in time: its state is that of no version."""
        self._pushing: asyncio.Task[None] | None = None
        self._writing: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def requeued(self) -> tuple[str, ...]:
        """Samples whose group got too old and that wait to be admitted again."""
        return tuple(self._requeued)

    def stop(self) -> None:
        """Let `run` return after the step under way, or within `checkpoint.stop_within_s`; what is not trained by then
        stays in flight in the ledger."""
        self.stopping.ask()

    async def run(self) -> None:
        """Train to the last step, or until `stop`.

        Raises:
            StarvationError: no progress is possible, or none was made for `stall_timeout_s`.
            DivergenceError: non-finite numbers, or engine and learner disagree after a push.
            SyncError, EngineError: a part of the system failed.
        """
        self._failed = asyncio.get_running_loop().create_future()
        self.io.start_clock()
        # Else each full collection walks over all that was imported: a third of the time of a busy loop. What is frozen
        # stays so: others, like vLLM, freeze what they own, too.
        gc.freeze()
        training = self._spawn(self._train())
        self._spawn(self._admit())
        self._spawn(self._watch())
        try:
            await asyncio.wait({training, self._failed}, return_when=asyncio.FIRST_COMPLETED)
            if self._failed.done():
                cause = self._failed.result()
                raise describe_failure(cause) from cause
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    # ---- admission and rollout ------------------------------------------------------------------------------------

    async def _admit(self) -> None:
        while True:
            await self.buffer.admit()
            self._spawn(self._rollout(self._next_admission()))

    def _next_admission(self) -> Admission:
        if self._pending:
            return self._pending.popleft()
        sample_id = self._requeued.popleft() if self._requeued else next(self.prompts).sample_id
        return self.ledger.admit(sample_id, self.version)

    async def _rollout(self, admission: Admission) -> None:
        config = self.config
        self.buffer.begin(admission.uid, self._served)
        task = PromptTask(
            uid=admission.uid,
            dataset=config.data.train,
            sample_id=admission.sample_id,
            n=config.algo.group_size,
            seed=group_seed(config.seed, admission.uid, admission.sample_id),
            sampling=config.rollout.sampling,
            checks=config.algo.filters if config.algo.filters.reads_text else None,
        )
        try:
            meta, _, payload, grades = await sample(self.pool, self.rewards, task, on_loss=self.io.lost)
        except Exception as exc:
            cause = failed_prompt(exc)
            if cause is None:
                raise
            await self._fail(admission, cause)
            return
        group = ScoredGroup(meta, payload, grades.rewards, grades)
        self.window.finished(group)
        self._progress = time.monotonic()
        screened = screen(
            grades.rewards,
            meta.lengths,
            meta.finish_reasons,
            meta.defects,
            config.algo.filters,
            config.algo.min_valid_rewards,
            config.rollout.sampling.max_tokens,
            grades.outcomes,
        )
        reason = screened.reason
        self.window.screened(reason, screened.completions)
        if reason == "too_few_rewards":
            await self._fail(admission, EngineError(f"reward: {grades.failure}"))
        elif reason is not None:
            await self._filter(admission, reason, grades.outcomes)
        else:
            self._starvation.fed()
            await self.buffer.put(replace(group, rewards=screened.rewards))

    async def _reissue(self, batch: Sequence[ScoredGroup], lost: frozenset[int]) -> None:
        """Sample groups of a batch again whose tokens are gone; they and the others keep their slots."""
        self.io.lost(len(lost))
        await self.buffer.put_back([group for group in batch if group.meta.uid not in lost])
        for uid in sorted(lost):
            self._spawn(self._rollout(self.ledger.admission(uid)))

    async def _filter(self, admission: Admission, reason: str, outcomes: Sequence[float | None]) -> None:
        self.ledger.close(admission.uid, "filtered", reason, self.version)
        self.prompts.observe(admission.sample_id, outcomes, "filtered", admission.uid)
        self._starvation.filtered(reason)
        await self.buffer.drop(admission.uid)

    async def _fail(self, admission: Admission, cause: BaseException) -> None:
        self.ledger.close(admission.uid, "failed", first_line(cause), self.version)
        self.prompts.observe(admission.sample_id, (), "failed", admission.uid)
        self._starvation.failed(cause)
        await self.buffer.drop(admission.uid)

    # ---- training and pushing -------------------------------------------------------------------------------------

    async def _train(self) -> None:
        while self.version < self.config.steps:
            begun, self._waits_since = time.time(), time.monotonic()
            try:
                batch = await unless(self.stopping.asked, self._batch())
            except CutShortError:
                break
            finally:
                self._waits_since = None
            taken = time.time()
            step = self.version + 1
            window, self.window = self.window, StepWindow()
            advantages = batch_advantages([group.rewards for group in batch], self.config.algo.advantages)
            ranks, updates = self.config.learner.ranks, self.config.algo.updates_per_step
            shares = plan_updates(batch, advantages, ranks, updates, self.learner.cost)
            record = self.io.record(step)
            try:
                with waiting("train", f"step {step}"):
                    metrics, ticket, probe = await unless(self.stopping.overdue, self.learner.train(shares, record))
            except CutShortError:
                self.mid_step = True
                break
            except GroupsLostError as exc:
                window.absorb(self.window)
                self.window = window
                await self._reissue(batch, exc.uids)
                continue
            if record is not None:
                await self.io.recorded(step, record, batch, advantages, metrics, self.learner)
            row = window.drain() | window.of_batch(batch, self.version)
            for group in batch:
                self.ledger.close(group.meta.uid, "trained", step=step)
                self.prompts.observe(group.meta.sample_id, group.grades.outcomes, "trained", group.meta.uid)
            self.version = step
            row |= self.prompts.advance(step)
            self._progress = time.monotonic()
            start, end = metrics.pop("time/train_start"), metrics.pop("time/train_end")
            self.io.timeline("learner", "wait", begun, taken, step)
            self.io.timeline("learner", "train", start, end, step)
            row |= metrics | {"time/learner_wait_s": taken - begun, "time/learner_busy_s": end - start}
            if self._pushing is not None:
                await self._pushing
            self._pushing = self._spawn(self._push(step, ticket, probe, row, len(batch)))
            await self._at_step_end(step)
        for ending in (self._pushing, self._writing):
            if ending is not None:
                await ending

    async def _batch(self) -> list[ScoredGroup]:
        while True:
            batch, stale = await self.buffer.take(self.version)
            for group in stale:
                self.ledger.close(
                    group.meta.uid, "stale", f"older than {self.buffer.max_staleness} versions", self.version
                )
                self.prompts.observe(group.meta.sample_id, group.grades.outcomes, "stale", group.meta.uid)
                self._requeued.append(group.meta.sample_id)
                await self.buffer.release()
            if batch:
                return batch

    async def _push(self, step: int, ticket: Any, probe: Any, row: dict[str, Any], slots: int) -> None:
        try:
            await unless(self.stopping.overdue, self._swap(step, ticket, probe, row, slots))
        except CutShortError:
            logger.warning("the push of version %d was broken off: no time is left to stop", step)
        self.io.step(step, row, self.ledger)

    async def _swap(self, step: int, ticket: Any, probe: Any, row: dict[str, Any], slots: int) -> None:
        """Give the engines a version's weights and compare them with the learner; `row` gets the figures."""
        row |= engine_metrics((await self._ask("load", step)).values())
        started = time.time()
        try:
            with waiting("push", f"version {step}"):
                times = await self.pool.push(ticket)
        except Exception as exc:
            cause = describe_failure(exc)
            if not isinstance(cause, SyncError | ActorLostError):
                cause = SyncError(f"push of version {step}: {cause}")
            raise cause from exc
        pushed, self._served = time.time(), step
        await self.buffer.release(slots)
        self.io.timeline("sync", "push", started, pushed, step)
        row["sync/push_s"] = pushed - started
        row["sync/fetch_s"] = max(t.fetch_s for t in times)
        row["sync/fallbacks"] = sum(t.transport != self.config.sync.transport for t in times)
        row["sync/pause_s"] = max(t.pause_s for t in times)
        row["sync/apply_s"] = max(t.apply_s for t in times)
        row |= await compare_probe(self.pool, probe, step, self.config.probe.threshold)
        row |= self.io.rollout_activity(await self._ask("busy", step), step)
        row |= self.io.changes({"rollout": self.pool.fleet, "reward": self.rewards.fleet}, step)

    async def _ask(self, what: str, step: int) -> dict[str, Any]:
        """A figure of every engine, by name."""
        with waiting("ask", f"{what} of the engines, step {step}"):
            return await self.pool.each(what)

    async def _at_step_end(self, step: int) -> None:
        """Profiles, evaluations and checkpoints that are due; they need the push to have arrived."""
        every, last = self.config.evaluation.every, step == self.config.steps
        evaluate = every is not None and step % every == 0 and not last
        save = self.config.checkpoint.every is not None and step % self.config.checkpoint.every == 0 and not last
        profile = None if last else self.prompts.profile_wanted()
        if not (evaluate or save or profile):
            return
        assert self._pushing is not None
        await self._pushing
        self._stall_counts = False  # what follows may be long and makes no step
        overdue = self.stopping.overdue
        try:
            if profile is not None:
                self.prompts.profiled(await unless(overdue, self.io.profile(self.pool, self.rewards, profile, step)))
            if evaluate:
                await unless(overdue, self.io.evaluate(self.pool, self.rewards, step))
        except CutShortError:
            logger.warning("the profile or evaluation at step %d was broken off: no time is left to stop", step)
        if save:
            if self._writing is not None:
                await self._writing
            parts = (self.learner, self.rewards, self.prompts, self.ledger, self.requeued, self.buffer.finished)
            self._writing = self._spawn(await self.io.checkpoint(step, *parts))
        self._stall_counts, self._progress = True, time.monotonic()

    # ---- watching -------------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        limit, said = self.config.stall_timeout_s, time.monotonic()
        while True:
            await asyncio.sleep(min(_WATCH_S, limit / 4))
            now = time.monotonic()
            since = self._waits_since
            if since is not None and now - max(said, since) >= _QUIET_S:
                said = now
                ready, late = self.buffer.ready, self.buffer.awaited(self.version)
                self.io.waiting(now - since, self.ledger, ready, self.buffer.groups_per_step, late)
            idle = now - self._progress
            if idle > limit and self._stall_counts:
                waits = "; ".join(filter(None, [f"fates {self.ledger.reasons()}", long_waits()]))
                raise StarvationError(
                    f"nothing finished for {idle:.0f} s at version {self.version}: {self.buffer.used} of "
                    f"{self.buffer.capacity} slots in use, {self.buffer.ready} groups ready of "
                    f"{self.buffer.groups_per_step} needed, {waits}; raise stall_timeout_s ({limit:g}) if completions "
                    "take that long"
                )

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._on_done)
        return task

    def _on_done(self, task: asyncio.Task[None]) -> None:
        """The first failure of any coroutine ends the run."""
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None and not self._failed.done():
            self._failed.set_result(task.exception())


async def compare_probe(pool: RolloutPool, learner: Any, version: int, limit: float) -> dict[str, float]:
    """Compare every engine's logprobs of the probe with the learner's, a reference to float32 [tokens].

    Raises:
        SyncError: an engine serves another version.
        DivergenceError: the mean |difference| of an engine exceeds `limit` nats a token.
    """
    with waiting("probe", f"version {version}"):
        results = (await pool.each("probe", learner)).values()
    versions = {served for *_, served in results}
    if versions != {version}:
        raise SyncError(
            f"with version {version} pushed the engines serve {sorted(versions)}: what they sample would be taken for "
            "another version's; set another sync.transport"
        )
    mean, largest = max(r[0] for r in results), max(r[1] for r in results)
    if not mean <= limit:
        raise DivergenceError(
            f"at version {version} engine and learner differ by {mean:.3g} nats a token on the probe (limit "
            f"{limit:g}): the engine does not run the learner's weights; check dtypes, or raise probe.threshold if "
            "the engine computes in a lower precision"
        )
    return {"probe/logprob_delta_mean": mean, "probe/logprob_delta_max": largest, "probe/threshold": limit}
