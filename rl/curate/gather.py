"""Stored attempts to one matrix of rewards per policy, streamed: memory is 8 bytes per candidate and attempt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from rl.curate.attempts import read_attempts, require_finite
from rl.errors import DataError


@dataclass(slots=True)
class Gathered:
    """Rewards of all candidates."""

    rewards: dict[str, np.ndarray] = field(default_factory=dict)
    """By policy: float64 [candidates, attempts]; NaN where none was made or its grader failed."""
    made: dict[str, np.ndarray] = field(default_factory=dict)
    """By policy: bool [candidates], whether there is any attempt."""
    rows: int = 0
    """Attempts read, repeated ones included."""
    others: int = 0
    """Of them, attempts at samples that are no candidates."""
    disagreeing: int = 0
    """Attempts that stand twice with different rewards; the first one counts."""

    def of(self, policy: str | None) -> str:
        """The name of a policy that made attempts.

        Raises:
            DataError: unknown name, or none given while there are several.
        """
        known = ", ".join(sorted(self.rewards)) or "none"
        if policy is None and len(self.rewards) == 1:
            return next(iter(self.rewards))
        if policy is None:
            raise DataError(f"the attempts are of the policies {known}; set `policy` to the one to judge")
        if policy not in self.rewards:
            raise DataError(f"no attempts of policy {policy!r} at these candidates; there are attempts of: {known}")
        return policy


def gather(folders: Sequence[Path], index: Mapping[str, int], count: int | None = None) -> Gathered:
    """Read the attempts of folders at the candidates of `index` (id -> row), of `count` rows in all.

    Raises:
        DataError: see `read_attempts`; a reward that is not finite.
    """
    found = Gathered()
    count = len(index) if count is None else count
    for batch in read_attempts(folders, ("id", "policy", "attempt", "reward")):
        ids, policies = batch.column("id"), batch.column("policy")
        row_of = np.array([index.get(name, -1) for name in ids.dictionary.to_pylist()], dtype=np.int64)
        rows = row_of[ids.indices.to_numpy()]
        attempts = batch.column("attempt").to_numpy()
        require_finite(batch)
        values = batch.column("reward").to_numpy(zero_copy_only=False)
        found.rows += len(rows)
        found.others += int(np.count_nonzero(rows < 0))
        names, codes = policies.dictionary.to_pylist(), policies.indices.to_numpy()
        for number in np.unique(codes):
            mask = (codes == number) & (rows >= 0)
            _put(found, names[number], count, rows[mask], attempts[mask], values[mask])
    return found


def _put(found: Gathered, policy: str, count: int, rows: np.ndarray, attempts: np.ndarray, values: np.ndarray) -> None:
    if not len(rows):
        return
    matrix = found.rewards.get(policy)
    width = int(attempts.max()) + 1
    if matrix is None:
        matrix = np.full((count, width), np.nan)
    elif matrix.shape[1] < width:
        matrix = np.hstack([matrix, np.full((count, width - matrix.shape[1]), np.nan)])
    found.rewards[policy] = matrix
    found.made.setdefault(policy, np.zeros(count, dtype=bool))[rows] = True
    before = matrix[rows, attempts]
    held = ~np.isnan(before)
    found.disagreeing += int(np.count_nonzero(held & ~np.isnan(values) & (before != values)))
    matrix[rows[~held], attempts[~held]] = values[~held]
