"""Entropy control by covariance (arXiv 2505.22617): which tokens of an update to hold back, and how.

A token lowers the policy's entropy as much as its logprob and its advantage vary together:
cov = (logprob - mean logprob) * (advantage - mean advantage), means over the tokens of the whole update.

KL-Cov penalises the share with the highest covariances; Clip-Cov takes a random share out. Both choose before the
first micro-batch, from proximal logprobs, so the choice does not depend on how tokens are spread over micro-batches and
ranks:

1. each rank sums its tokens (`moments`); the sums are added over the ranks;
2. each rank scores its tokens (`covariances`, `scores`) and offers its best ones;
3. all ranks cut at the same score (`cut`).

Published code chooses inside a micro-batch from current logprobs instead; see tests/golden/covariance_selection.json.
"""

from __future__ import annotations

import numpy as np
import torch

from rl.config.objective import CovarianceConfig

_GOLDEN = 0x9E3779B97F4A7C15
_MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))


def moments(advantages: torch.Tensor, logprobs: torch.Tensor) -> dict[str, float]:
    """`tokens`, and the sums of `advantages` and `logprobs`, in double precision; to be added over ranks."""
    return {
        "tokens": float(logprobs.numel()),
        "advantages": float(advantages.double().sum()),
        "logprobs": float(logprobs.double().sum()),
    }


def covariances(advantages: torch.Tensor, logprobs: torch.Tensor, total: dict[str, float]) -> torch.Tensor:
    """float64 [N]: each token's part of the covariance, given the `moments` of all ranks."""
    mean_advantage, mean_logprob = total["advantages"] / total["tokens"], total["logprobs"] / total["tokens"]
    return (advantages.double() - mean_advantage) * (logprobs.double() - mean_logprob)


def scores(covariance: torch.Tensor, priorities: torch.Tensor, config: CovarianceConfig) -> torch.Tensor:
    """float64 [N]: the higher, the sooner chosen; -inf is never chosen.

    KL-Cov ranks by covariance, of which only positive ones lower the entropy. Clip-Cov ranks the tokens whose
    covariance lies between the bounds by `priorities`, which makes its draw random.
    """
    if config.control == "kl_cov":
        return covariance.masked_fill(covariance <= 0, -torch.inf)
    inside = (covariance > config.low) & (covariance < config.high)
    return priorities.double().masked_fill(~inside, -torch.inf)


def budget(tokens: float, config: CovarianceConfig) -> int:
    """How many of an update's tokens are chosen: the share, rounded down, and at least one."""
    return max(1, int(config.share * tokens))


def best(values: torch.Tensor, count: int) -> torch.Tensor:
    """The `count` highest scores: all that a rank can contribute to the choice."""
    return values.topk(min(count, values.numel())).values


def cut(offered: torch.Tensor, count: int) -> float:
    """The lowest score that is chosen, given what all ranks offered. Tokens with that very score are all chosen."""
    possible = offered[offered > -torch.inf]
    if possible.numel() == 0:
        return float("inf")
    return float(best(possible, count)[-1])


def token_priorities(key: int, length: int) -> np.ndarray:
    """float64 [length] in [0, 1): a draw for each token of a sequence that depends on `key` and position alone.

    The generator is SplitMix64 (Steele, Lea and Flood 2014), seeded with its own hash of the key.
    """
    start = _splitmix(np.array([key % 2**64], dtype=np.uint64))
    with np.errstate(over="ignore"):
        state = start + np.arange(length, dtype=np.uint64) * np.uint64(_GOLDEN)
    return (_splitmix(state) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _splitmix(state: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        value = state + np.uint64(_GOLDEN)
        for shift, factor in _MIX:
            value = (value ^ (value >> np.uint64(shift))) * np.uint64(factor)
    return value ^ (value >> np.uint64(31))


def restrained(
    objective: torch.Tensor, log_ratio: torch.Tensor, selected: torch.Tensor, config: CovarianceConfig
) -> torch.Tensor:
    """The objective [N] with the chosen tokens held back.

    KL-Cov subtracts `coefficient * |log_ratio|`, log_ratio being current - proximal; Clip-Cov sets the objective, and
    with it the gradient, to zero.
    """
    if config.control == "kl_cov":
        return objective - torch.where(selected, config.coefficient * log_ratio.abs(), 0.0)
    return objective.masked_fill(selected, 0.0)
