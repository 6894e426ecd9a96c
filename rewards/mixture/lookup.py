"""From a task's name to its recipe: exact names first, then patterns in the order of the file."""

from __future__ import annotations

import fnmatch
import functools
import re

from rewards.mixture.settings import MixtureConfig, Recipe
from rewards.settings import unknown_name

_MAGIC = re.compile(r"[*?\[]")
MEMORY = 65_536
"""Task names whose recipe is remembered; any number may be looked up."""


class UnknownTask(ValueError):
    """A task that neither a name, nor a pattern, nor a default of the mixture covers."""


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
        """The recipe of a task; raises `UnknownTask`."""

    def _find(self, task: str) -> Recipe:
        if task in self._exact:
            return self._exact[task]
        for pattern, recipe in self._patterns:
            if pattern.match(task):
                return recipe
        if self._default is None:
            raise UnknownTask(f"{unknown_name('task', task, self._names)} Name it or a pattern, or set default")
        return self._default
