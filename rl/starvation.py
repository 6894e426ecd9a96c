"""Groups that come to nothing one after another: a warning that names the cause, then an error."""

from __future__ import annotations

import logging

from rl.algo.filters import EQUAL_REWARDS
from rl.config.train import StarvationConfig
from rl.errors import StarvationError

logger = logging.getLogger(__name__)

_FEWEST = 40
"""Filtered groups in a row that say something, however small the capacity."""
_CAUSES = {
    True: "had equal rewards (the last: {reason}), so nothing can be learned; choose easier or harder prompts "
    "(`rl curate`), or a larger algo.group_size",
    False: "were filtered (the last: {reason}), so nothing is trained; look at the completions, raise "
    "rollout.sampling.max_tokens, or set algo.filters.{reason} to count",
}


class Starvation:
    """Counts them. `failed` and `filtered` raise StarvationError beyond what the config allows.

    Args:
        capacity: groups that are under way at once.
    """

    def __init__(self, config: StarvationConfig, capacity: int) -> None:
        self._config, self._capacity = config, capacity
        self._failed = self._filtered = 0

    def fed(self) -> None:
        """A group is there to train on."""
        self._failed = self._filtered = 0

    def filtered(self, reason: str) -> None:
        self._failed = 0
        self._filtered += 1
        what = f"groups in a row {_CAUSES[reason in EQUAL_REWARDS].format(reason=reason)}"
        _check(self._filtered, what, max(_FEWEST, self._capacity), self._config.filtered, "filtered")

    def failed(self, cause: BaseException) -> None:
        self._failed += 1
        what = f"prompts in a row failed; the last one: {cause}"
        _check(self._failed, what, self._capacity, self._config.failed, "failed")


def _check(count: int, what: str, capacity: int, capacities: int, setting: str) -> None:
    """Warn when a capacity's worth has come to nothing, and end the run at the limit."""
    limit = capacities * capacity
    if count > limit:
        raise StarvationError(f"{count} {what} (starvation.{setting})")
    if count == capacity:
        logger.warning("%d %s. After more than %d the run ends (starvation.%s)", count, what, limit, setting)
