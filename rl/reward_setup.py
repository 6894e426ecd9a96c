"""What graders need and have to be given, read where a run is started: plug-ins, mixture, tokens. Nothing grades here.

Reward workers may run on machines that have none of these files and variables, so all of it is sent to them, and every
mistake in it is the user's and is said before an actor starts.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rl.config.rollout import RewardConfig
from rl.data.containers import first_values
from rl.errors import ConfigError, DataError

if TYPE_CHECKING:
    from rewards.mixture import MixtureConfig


@dataclass(frozen=True, slots=True)
class PluginFile:
    """A plug-in as it travels."""

    name: str
    """Of the file, which error messages show."""
    attribute: str | None
    source: bytes


@dataclass(frozen=True, slots=True)
class Carried:
    """What is sent to the reward workers and to the judges."""

    files: Mapping[str, PluginFile] = field(default_factory=dict)
    """Plug-ins that are files, by answer type."""
    mixture: MixtureConfig | None = None
    """Caches of its judges are absolute paths on the machine that starts the run."""
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Tokens, by the environment variables that the configs name."""


def carry(config: RewardConfig) -> Carried:
    """Read the files and tokens that a config names. Call it where the run is started.

    Raises:
        ConfigError: a plug-in or a mixture that can't be used, or a token that is not set.
    """
    files = _plugin_files(config)
    mixture = mixture_of(config)
    wanted = secret_names(config, mixture)
    unset = [f"{where} names {name}" for where, name in wanted.items() if not os.environ.get(name, "").strip()]
    if unset:
        which = "which is not set here; export the token in it" if len(unset) == 1 else "which are not set here"
        raise ConfigError(f"{', '.join(unset)}, {which}")
    return Carried(files, mixture, {name: os.environ[name] for name in wanted.values()})


def secret_names(config: RewardConfig, mixture: MixtureConfig | None) -> dict[str, str]:
    """Setting -> environment variable, for every token that a run of this config needs."""
    names = {} if config.token_env is None else {"rewards.token_env": config.token_env}
    if mixture is not None:
        for name, judge in mixture.judges.items():
            if judge.api_key_env is not None:
                names[f"judges.{name}.api_key_env of {config.mixture}"] = judge.api_key_env
    return names


def mixture_of(config: RewardConfig) -> MixtureConfig | None:
    """The settings of the mixture that a config names, with absolute paths.

    Raises:
        ConfigError: the file can't be used.
    """
    from rewards.mixture import MixtureConfig
    from rewards.settings import SettingsError, load_settings

    if config.mixture is None:
        return None
    try:
        mixture = load_settings(MixtureConfig, config.mixture)
    except SettingsError as exc:
        raise ConfigError(f"rewards.mixture: {exc}") from exc
    root = Path(config.root or ".").absolute()
    judges = {
        name: judge if judge.cache is None else judge.model_copy(update={"cache": str(root / judge.cache)})
        for name, judge in mixture.judges.items()
    }
    return mixture.model_copy(update={"judges": judges})


def check_answer_types(config: RewardConfig, mixture: MixtureConfig | None, answer_types: Iterable[str]) -> None:
    """Raise `ConfigError` where rows need a judge that nothing configures; a service may have one of its own."""
    from rewards.judge import JUDGED

    judged = sorted((JUDGED & set(answer_types)) - set(config.plugins))
    if judged and config.url is None and (mixture is None or mixture.default_judge is None):
        raise ConfigError(
            f"the data has rows of answer type {', '.join(judged)}, which only a judge can grade; "
            "name a file in rewards.mixture whose `judges` has one called default"
        )


def check_tasks(mixture: MixtureConfig, tasks: Iterable[str]) -> None:
    """Raise `ConfigError` where tasks that are trained on have no recipe; names them."""
    from rewards.mixture import RecipeBook
    from rewards.settings import SettingsError

    try:
        RecipeBook(mixture).check(tasks)
    except SettingsError as exc:
        raise ConfigError(f"rewards.mixture: {exc} (a task is a row's `{mixture.task}`)") from exc


def problems(config: RewardConfig, answer_types: Iterable[str], trained: str | None = None) -> list[str]:
    """What would stop the reward workers of a run with rows of these answer types, for --dry-run.

    A service is not asked: it may be started later.

    Args:
        trained: the dataset that a mixture grades; one that is not here is not looked at.
    """
    from rewards import PluginError, UnknownVerifier, registry
    from rewards.limits import check_memory

    names = sorted(answer_types)
    try:
        carried = carry(config)
        check_answer_types(config, carried.mixture, names)
        check_mixture(config, carried.mixture, trained)
    except ConfigError as exc:
        return [str(exc)]
    if config.url is not None:
        return []
    found = []
    try:
        check_memory(names, config.memory_mb, config.plugins)
    except ValueError as exc:
        found.append(f"rewards.{exc}")
    for name in names:
        try:
            registry.resolve(name, config.plugins)
        except (UnknownVerifier, PluginError) as exc:
            found.append(f"{exc}; plug-ins are named in rewards.plugins")
    return found


def check_mixture(config: RewardConfig, mixture: MixtureConfig | None, trained: str | None) -> None:
    """Check what can be told of a mixture without starting anything.

    Args:
        trained: the dataset that it grades; one that is not on this machine is not looked at.
    Raises:
        ConfigError: verifiers that are not known, or tasks without a recipe.
    """
    from rewards import registry

    if mixture is None:
        return
    if config.url is None:
        try:
            registry.check_names(mixture.verifiers(), config.plugins)
        except ValueError as exc:
            raise ConfigError(f"rewards.mixture: {config.mixture}: {exc}") from exc
    if trained is not None:
        try:
            tasks = first_values(trained, (mixture.task, "answer_type"))
        except DataError:  # said elsewhere, with the reason
            return
        check_tasks(mixture, tasks)


def _plugin_files(config: RewardConfig) -> dict[str, PluginFile]:
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
    return files
