"""The client of the reward package inside the loop: a Ray actor around a pool of killable processes, or of a service.

Plug-ins that are files are read where the run is started and sent along, so that they need not lie on other nodes.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rl.config.rollout import RewardConfig
from rl.errors import ConfigError

if TYPE_CHECKING:
    from rewards import RemotePool, RewardPool, RewardResult
    from rewards.mixture import MixtureConfig

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PluginFile:
    """A plug-in as it travels."""

    name: str
    """Of the file, which error messages show."""
    attribute: str | None
    source: bytes


@dataclass(frozen=True, slots=True)
class Carried:
    """What reward workers need and have to be given: it lies on the machine that starts the run."""

    files: Mapping[str, PluginFile] = field(default_factory=dict)
    """By answer type."""
    token: str | None = field(default=None, repr=False)


class RewardWorker:
    """Grades groups. Created as a Ray actor; needs no GPU and no model."""

    def __init__(self, config: RewardConfig, answer_types: tuple[str, ...], carried: Carried | None = None) -> None:
        from rewards import Mixture

        mixture = mixture_of(config, answer_types)
        names = sorted({*answer_types, *(mixture.verifiers() if mixture is not None else ())})
        self._folder = tempfile.TemporaryDirectory(prefix="reward-plugins-")
        self.pool = make_pool(config, names, carried or carry(config), Path(self._folder.name))
        self.mixture = None if mixture is None else Mixture(mixture, pool=self.pool, plugins=config.plugins)
        self._told: set[str] = set()

    async def ready(self) -> bool:
        return True

    async def ping(self) -> None:
        """Returns if the process lives; graders that hang are killed by the pool."""

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
        for result in results:
            if result.value is None:
                self._tell(task.answer_type, result)
        return tuple(result.value for result in results), tuple(result.status for result in results)

    def _tell(self, answer_type: str, result: RewardResult) -> None:
        """Log why a grader failed, once for each kind of failure: the loop only gets its status."""
        kind = f"{answer_type}: {result.status}"
        if kind not in self._told:
            self._told.add(kind)
            logger.warning("a grader failed (%s): %s. Further ones of this kind are only counted", kind, result.detail)

    async def state_dict(self) -> dict[str, Any] | None:
        """What a resumed run must know: the mixture's running statistics, None without a mixture."""
        return None if self.mixture is None else self.mixture.state_dict()

    async def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state; a run that has no mixture any more has no use for it."""
        if self.mixture is not None:
            self.mixture.load_state_dict(state)

    async def answers(self, task: Any, limit: int) -> tuple[str | None, ...]:
        """The final answers of a `ScoringTask`'s completions, cut at `limit` characters; None where there is none."""
        from rewards.extract import final_answer

        found = (final_answer(text) for text in task.texts)
        return tuple(None if answer is None else answer[:limit] for answer in found)

    async def close(self) -> None:
        if self.mixture is not None:
            self.mixture.close()
        self.pool.close()
        self._folder.cleanup()


def carry(config: RewardConfig) -> Carried:
    """Read the plug-in files and the token of a config. Call it where the run is started.

    Raises:
        ConfigError: a plug-in that can't be loaded, or a token that is not set.
    """
    from rewards import plugins

    files: dict[str, PluginFile] = {}
    for name, reference in config.plugins.items():
        try:
            found = plugins.absolute(reference)
            plugins.load(found)
        except (plugins.PluginError, ImportError) as exc:
            raise ConfigError(f"rewards.plugins.{name}: {exc}") from exc
        file = plugins.file_of(found)
        if file is not None:
            attribute = None if found == str(file) else found.rpartition(":")[2]
            files[name] = PluginFile(file.name, attribute, file.read_bytes())
    token = None
    if config.token_env is not None:
        token = os.environ.get(config.token_env)
        if not token:
            raise ConfigError(
                f"rewards.token_env names {config.token_env}, which is not set here; export the service's token in it"
            )
    return Carried(files, token)


def make_pool(
    config: RewardConfig, answer_types: Sequence[str], carried: Carried, folder: Path
) -> RewardPool | RemotePool:
    """Local processes or the client of a service; `folder` takes the plug-in files."""
    from rewards import RemotePool, RewardPool

    if config.url is not None:
        return RemotePool(config.url, carried.token, patience_s=config.patience_s, preload=answer_types)
    return RewardPool(
        workers=config.processes,
        timeout_s=config.timeout_s,
        memory_mb=config.memory_mb,
        preload=answer_types,
        plugins={**config.plugins, **_unpack(carried.files, folder)},
    )


def problems(config: RewardConfig, answer_types: Iterable[str]) -> list[str]:
    """What would stop the reward workers of a run with rows of these answer types, for --dry-run.

    A service is not asked: it may be started later.
    """
    from rewards import PluginError, UnknownVerifier, registry
    from rewards.limits import check_memory

    answer_types = tuple(answer_types)
    try:
        carry(config)
        mixture_of(config, answer_types)
    except ConfigError as exc:
        return [str(exc)]
    if config.url is not None:
        return []
    found = []
    try:
        check_memory(answer_types, config.memory_mb, config.plugins)
    except ValueError as exc:
        found.append(f"rewards.{exc}")
    for name in sorted(answer_types):
        try:
            registry.resolve(name, config.plugins)
        except (UnknownVerifier, PluginError) as exc:
            found.append(f"{exc}; plug-ins are named in rewards.plugins")
    return found


def _unpack(files: Mapping[str, PluginFile], folder: Path) -> dict[str, str]:
    references = {}
    for number, (name, file) in enumerate(files.items()):
        path = folder / str(number) / file.name  # a folder each: two files may have one name
        path.parent.mkdir(parents=True)
        path.write_bytes(file.source)
        references[name] = str(path) if file.attribute is None else f"{path}:{file.attribute}"
    return references


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
    if config.url is not None:
        return mixture  # the service may have a judge of its own
    judged = sorted((JUDGED & set(answer_types)) - set(config.plugins))
    if judged and (mixture is None or mixture.default_judge is None):
        raise ConfigError(
            f"the data has rows of answer type {', '.join(judged)}, which only a judge can grade; "
            "name a file in rewards.mixture whose `judges` has one called default"
        )
    return mixture
