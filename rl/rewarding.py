"""The client of the reward package inside the loop: a Ray actor around a pool of killable processes."""

from __future__ import annotations

from typing import Any

from rl.config.rollout import RewardConfig


class RewardWorker:
    """Grades groups. Created as a Ray actor; needs no GPU and no model."""

    def __init__(self, config: RewardConfig, answer_types: tuple[str, ...]) -> None:
        from rewards import RewardPool

        self.pool = RewardPool(
            workers=config.processes, timeout_s=config.timeout_s, memory_mb=config.memory_mb, preload=answer_types
        )

    async def ready(self) -> bool:
        return True

    async def score(self, task: Any) -> tuple[tuple[float | None, ...], tuple[str, ...]]:
        """Values and statuses of a `ScoringTask`'s completions, in order; a failed grader gives value None."""
        from rewards import Request

        sample = {"options": task.options, "prompt_type": task.prompt_type}
        requests = [Request(text, task.answers, task.answer_type, task.problem, sample) for text in task.texts]
        results = await self.pool.ascore_many(requests)
        return tuple(result.value for result in results), tuple(result.status for result in results)

    async def answers(self, task: Any, limit: int) -> tuple[str | None, ...]:
        """The final answers of a `ScoringTask`'s completions, cut at `limit` characters; None where there is none."""
        from rewards.extract import final_answer

        found = (final_answer(text) for text in task.texts)
        return tuple(None if answer is None else answer[:limit] for answer in found)

    async def close(self) -> None:
        self.pool.close()
