"""Unbiased Pass@k."""

from __future__ import annotations

from math import comb


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
