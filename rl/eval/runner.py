"""Evaluation: k completions per sample with fixed seeds, scored; mean@k and unbiased Pass@k per task."""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rl.algo.passk import pass_at_k
from rl.cluster import RewardClient, RolloutPool
from rl.config.rollout import RolloutConfig, SamplingConfig
from rl.errors import EngineError
from rl.failures import failed_prompt, object_lost
from rl.metrics.console import progress
from rl.records import RIGHT, Grades, GroupMeta
from rl.rollout.endpoint import EndpointPool
from rl.rollout.worker import PromptTask
from rl.watch import waiting

_LOSSES = 5
"""Times that a group may be lost with the node that holds it before its prompt has failed."""


@dataclass(frozen=True, slots=True)
class Attempts:
    """The scored attempts at one sample."""

    meta: GroupMeta | None
    """None when the prompt itself failed."""
    sample_id: str
    source: str
    rewards: tuple[float | None, ...]
    statuses: tuple[str, ...]
    scoring: Any
    """`rl.mail.Part` that is the `ScoringTask`, which holds the texts."""

    @property
    def valid(self) -> int:
        return sum(reward is not None for reward in self.rewards)

    @property
    def right(self) -> int:
        return sum(reward is not None and reward >= RIGHT for reward in self.rewards)


def attempt_seed(seed: int, sample_id: str) -> int:
    """Seed of a sample's first attempt, the same wherever and whenever it is made; attempt i takes seed + i."""
    digest = hashlib.sha256(f"{seed}|{sample_id}".encode()).digest()
    return int.from_bytes(digest[:4], "big") % (1 << 30)


def group_seed(seed: int, uid: int, sample_id: str) -> int:
    """Seed of a training group's first completion; completion i takes seed + i."""
    return attempt_seed(seed, f"{uid}|{sample_id}")


def prompts_in_flight(config: RolloutConfig, k: int, workers: int | None = None) -> int:
    """Prompts of `k` completions that keep every engine full, with as many again waiting.

    Args:
        workers: how many there are now, where it may differ from the config.
    """
    return max(1, 2 * (config.workers if workers is None else workers) * config.engine.max_num_seqs // k)


async def sample(
    pool: RolloutPool | EndpointPool,
    rewards: RewardClient,
    task: PromptTask,
    evaluation: bool = False,
    on_loss: Callable[[int], None] = lambda count: None,
) -> tuple[GroupMeta, Any, Any, Grades]:
    """A group (its numbers, where its texts and its tokens are) and its grades.

    It is made again if the node that holds it goes before it is graded; `on_loss` gets 1 for each time.

    Raises:
        EngineError: that happened over and over.
        Exception: what else sampling and grading raise.
    """
    name = f"{task.tag} {task.uid} ({task.sample_id})"
    for _ in range(_LOSSES):
        try:
            with waiting("generate", name):
                meta, scoring, payload = await pool.generate(task)
            with waiting("score", name):
                return meta, scoring, payload, await rewards.score(scoring, evaluation)
        except Exception as exc:
            if not object_lost(exc):
                raise
            on_loss(1)
    raise EngineError(f"its tokens were lost {_LOSSES} times, with the nodes that held them")


async def attempt(pool: RolloutPool | EndpointPool, rewards: RewardClient, source: str, task: PromptTask) -> Attempts:
    """The scored completions of one task; a prompt that fails has no rewards."""
    try:
        meta, scoring, _, grades = await sample(pool, rewards, task, evaluation=True)
    except Exception as exc:
        cause = failed_prompt(exc)
        if cause is None:
            raise
        return Attempts(None, task.sample_id, source, (None,) * task.n, (f"failed: {cause}",) * task.n, None)
    return Attempts(meta, task.sample_id, meta.source, grades.outcomes, grades.statuses, scoring)


async def attempt_all(
    pool: RolloutPool,
    rewards: RewardClient,
    dataset: str,
    ids: Sequence[str],
    k: int,
    sampling: SamplingConfig,
    seed: int,
    label: str,
) -> list[Attempts]:
    """`k` scored completions of each sample, in the order of `ids`; a prompt that fails has no rewards."""
    sources = (await pool.catalogue(dataset)).sources
    concurrency = asyncio.Semaphore(prompts_in_flight(pool.config, k, len(pool.fleet.members)))
    with progress(label, len(ids)) as bar:

        async def one(index: int, sample_id: str) -> Attempts:
            async with concurrency:
                task = PromptTask(index, dataset, sample_id, k, attempt_seed(seed, sample_id), sampling, tag=label)
                made = await attempt(pool, rewards, sources[sample_id], task)
            bar.advance()
            return made

        return list(await asyncio.gather(*(one(index, sample_id) for index, sample_id in enumerate(ids))))


def summarise(attempts: Sequence[Attempts], k: int) -> dict[str, Any]:
    """`mean_at_k` and `pass_at_k` over all samples and per source; samples without a valid reward are left out.

    `failed_rewards` counts completions whose grader failed: they are in no mean.
    """
    by_source: dict[str, list[Attempts]] = {}
    for attempt in attempts:
        by_source.setdefault(attempt.source, []).append(attempt)
    return {
        **_scores(attempts, k),
        "tasks": {source: _scores(rows, k) | _lengths(rows) for source, rows in sorted(by_source.items())},
        "failed_rewards": sum(len(attempt.rewards) - attempt.valid for attempt in attempts),
    }


def _scores(attempts: Sequence[Attempts], k: int) -> dict[str, float]:
    """Samples with failed graders count in mean@k by their valid attempts, and not at all in Pass@k, which needs k."""
    rows = [attempt for attempt in attempts if attempt.valid]
    full = [attempt for attempt in rows if attempt.valid >= k]
    mean = math.fsum(row.right / row.valid for row in rows) / len(rows) if rows else math.nan
    passed = math.fsum(pass_at_k(row.valid, row.right, k) for row in full) / len(full) if full else math.nan
    return {f"mean_at_{k}": mean, f"pass_at_{k}": passed}


def _lengths(attempts: Sequence[Attempts]) -> dict[str, float]:
    lengths = [length for attempt in attempts if attempt.meta for length in attempt.meta.lengths]
    return {"count": len(attempts), "length_mean": sum(lengths) / max(1, len(lengths))}


async def examples(pool: RolloutPool, dataset: str, attempts: Sequence[Attempts], count: int) -> list[dict[str, Any]]:
    """Samples with their completions for the report, spread over the sources; the same ones for the same dataset."""
    by_source: dict[str, list[Attempts]] = {}
    for attempt in attempts:
        if attempt.meta is not None:
            by_source.setdefault(attempt.source, []).append(attempt)
    rounds = [row for rank in range(count) for rows in by_source.values() for row in rows[rank : rank + 1]]
    result = []
    for attempt in rounds[:count]:
        shown = await pool.example(dataset, attempt.sample_id)
        try:
            scoring = await attempt.scoring.fetched()
        except Exception as exc:
            if not object_lost(exc):
                raise
            continue  # its node is gone; the others show enough
        result.append(
            {"id": attempt.sample_id, "source": attempt.source}
            | shown
            | {"completions": list(scoring.texts), "rewards": list(attempt.rewards)}
        )
    return result


async def evaluate(
    pool: RolloutPool,
    rewards: RewardClient,
    dataset: str,
    ids: Sequence[str],
    *,
    k: int,
    sampling: SamplingConfig,
    seed: int,
    step: int,
    example_count: int,
) -> dict[str, Any]:
    """One evaluation as `rl.metrics.files` describes it."""
    attempts = await attempt_all(pool, rewards, dataset, ids, k, sampling, seed, f"eval at step {step}")
    head = {"step": step, "k": k, "temperature": sampling.temperature, "seed": seed}
    shown = await examples(pool, dataset, attempts, example_count)
    return head | summarise(attempts, k) | {"examples": shown}
