"""From a task's name to its recipe: exact names first, then patterns in the order of the file."""

from __future__ import annotations

import fnmatch
import functools
import re
from collections.abc import Iterable

from rewards.mixture.settings import MixtureConfig, Recipe
from rewards.settings import SettingsError, unknown_name

_MAGIC = re.compile(r"[*?\[]")
MEMORY = 65_536
"""Task names whose recipe is remembered; any number may be looked up."""
SHOWN_TASKS = 10


class RecipeBook:
    """Recipes by task. A name that was looked up before costs one dictionary access, whatever the number of tasks."""

    def __init__(self, config: MixtureConfig) -> None:
        def resolved(choice: str | Recipe) -> Recipe:
            return config.recipes[choice] if isinstance(choice, str) else choice

        self._exact = {name: resolved(choice) for name, choice in config.tasks.items() if not _MAGIC.search(name)}
        self._patterns = [
            (re.compile(fnmatch.translate(name)), resolved(choice))
            for name, choice in config.tasks.items()
            if _MAGIC.search(name)
        ]
        self._default = None if config.default is None else resolved(config.default)
        self._names = list(config.tasks)
        self.recipe = functools.lru_cache(MEMORY)(self._find)
        """The recipe of a task; None where neither a name, nor a pattern, nor a default covers it."""
        self.remedy = functools.lru_cache(MEMORY)(self._remedy)
        """Why a task has no recipe, and what to set."""

    def check(self, tasks: Iterable[str]) -> None:
        """Raise `SettingsError` where some of these tasks have no recipe; the message names them and what to set."""
        without = sorted(task for task in set(tasks) if self.recipe(task) is None)
        if without:
            shown = ", ".join(map(repr, without[:SHOWN_TASKS]))
            more = f" and {len(without) - SHOWN_TASKS} more" if len(without) > SHOWN_TASKS else ""
            raise SettingsError(
                f"the mixture has no recipe for {len(without)} of the tasks: {shown}{more}. {self.remedy(without[0])}"
            )

    def _find(self, task: str) -> Recipe | None:
        if task in self._exact:
            return self._exact[task]
        for pattern, recipe in self._patterns:
            if pattern.match(task):
                return recipe
        return self._default

    def _remedy(self, task: str) -> str:
        return f"{unknown_name('task', task, self._names)} Name it or a pattern in `tasks`, or set `default`"
