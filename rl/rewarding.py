"""The client of the reward package inside the loop: a Ray actor around a pool of killable processes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rl.config.rollout import RewardConfig
from rl.errors import ConfigError

if TYPE_CHECKING:
    from rewards.mixture import MixtureConfig


class RewardWorker:
    """Grades groups. Created as a Ray actor; needs no GPU and no model."""

    def __init__(self, config: RewardConfig, answer_types: tuple[str, ...]) -> None:
        from rewards import Mixture, RewardPool

        mixture = mixture_of(config, answer_types)
        preload = {*answer_types, *(mixture.verifiers() if mixture is not None else ())}
        self.pool = RewardPool(
            workers=config.processes, timeout_s=config.timeout_s, memory_mb=config.memory_mb, preload=sorted(preload)
        )
        self.mixture = None if mixture is None else Mixture(mixture, pool=self.pool)

    async def ready(self) -> bool:
        return True

    async def score(self, task: Any, evaluation: bool = False) -> tuple[tuple[float | None, ...], tuple[str, ...]]:
        """Values and statuses of a `ScoringTask`'s completions, in order; a failed grader gives value None.

        With `evaluation` by the answer type alone, so that a right completion has the value 1 whatever the mixture.
        """
        from rewards import Request

        sample = {**task.columns, "source": task.source, "options": task.options, "prompt_type": task.prompt_type}
        requests = [Request(text, task.answers, task.answer_type, task.problem, sample) for text in task.texts]
        if self.mixture is None:
            results = await self.pool.ascore_many(requests)
        elif evaluation:
            results = await self.mixture.ascore_plain(requests)
        else:
            results = await self.mixture.ascore_many(requests)
        return tuple(result.value for result in results), tuple(result.status for result in results)

    async def state_dict(self) -> dict[str, Any] | None:
        """What a resumed run must know: the mixture's running statistics, None without a mixture."""
        return None if self.mixture is None else self.mixture.state_dict()

    async def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state; a run that has no mixture any more has no use for it."""
        if self.mixture is not None:
            self.mixture.load_state_dict(state)

    async def close(self) -> None:
        if self.mixture is not None:
            self.mixture.close()
        self.pool.close()


def mixture_of(config: RewardConfig, answer_types: tuple[str, ...]) -> MixtureConfig | None:
    """The settings of the mixture that a config names.

    Raises:
        ConfigError: the file can't be used, or rows need a judge that nothing configures.
    """
    from rewards.judge import JUDGED
    from rewards.mixture import MixtureConfig
    from rewards.settings import SettingsError, load_settings

    if config.mixture is None:
        mixture = None
    else:
        try:
            mixture = load_settings(MixtureConfig, config.mixture)
        except SettingsError as exc:
            raise ConfigError(f"rewards.mixture: {exc}") from exc
    judged = sorted(JUDGED & set(answer_types))
    if judged and (mixture is None or mixture.default_judge is None):
        raise ConfigError(
            f"the data has rows of answer type {', '.join(judged)}, which only a judge can grade; "
            "name a file in rewards.mixture whose `judges` has one called default"
        )
    return mixture
