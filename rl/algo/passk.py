"""Unbiased Pass@k, and intervals for the pass rate behind it."""

from __future__ import annotations

from math import comb
from typing import Literal

import numpy as np


def pass_at_k(n: int, correct: int, k: int) -> float:
    """Chance that at least one of `k` attempts, drawn without replacement from `n` with `correct` right, is right.

    `1 - C(n - c, k) / C(n, k)`, without bias for any k <= n (Chen et al. 2021, arXiv 2107.03374).

    Raises:
        ValueError: not 0 <= correct <= n, or not 1 <= k <= n.
    """
    if not 0 <= correct <= n:
        raise ValueError(f"{correct} right of {n} attempts is impossible")
    if not 1 <= k <= n:
        raise ValueError(f"Pass@{k} can't be estimated from {n} attempts; take at least k attempts")
    return 1.0 - comb(n - correct, k) / comb(n, k)


def pass_at_k_table(most: int, k: int) -> np.ndarray:
    """`pass_at_k` for every count up to `most` attempts.

    Returns:
        float64 [most + 1, most + 1]: row n, column c; NaN where c > n or n < k.
    """
    table = np.full((most + 1, most + 1), np.nan)
    for n in range(k, most + 1):
        table[n, : n + 1] = [pass_at_k(n, correct, k) for correct in range(n + 1)]
    return table


def rate_interval(
    n: np.ndarray, correct: np.ndarray, level: float, method: Literal["wilson", "clopper-pearson"]
) -> tuple[np.ndarray, np.ndarray]:
    """Ends of the two-sided interval for the chance behind `correct` of `n`, element by element; [0, 1] for n = 0.

    `wilson`: the score interval (Wilson 1927), close to `level` on average. `clopper-pearson`: the exact interval
    (1934), which covers at least `level` for every chance and is wider.
    """
    from scipy import special

    n, correct = np.broadcast_arrays(np.asarray(n, dtype=float), np.asarray(correct, dtype=float))
    tail = (1 - level) / 2
    safe = np.maximum(n, 1)
    if method == "wilson":
        z = special.ndtri(1 - tail)
        rate, z2 = correct / safe, z * z
        middle = (rate + z2 / (2 * safe)) / (1 + z2 / safe)
        half = z / (1 + z2 / safe) * np.sqrt(rate * (1 - rate) / safe + z2 / (4 * safe * safe))
        # At the ends the formula gives 0 and 1 exactly; rounding must not put them beyond.
        low, high = np.where(correct > 0, middle - half, 0.0), np.where(correct < n, middle + half, 1.0)
    else:
        low = np.where(correct > 0, special.betaincinv(np.maximum(correct, 1), safe - correct + 1, tail), 0.0)
        high = np.where(correct < n, special.betaincinv(correct + 1, np.maximum(n - correct, 1), 1 - tail), 1.0)
    return np.where(n > 0, low, 0.0), np.where(n > 0, high, 1.0)
