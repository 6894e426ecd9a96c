"""Parts of curricula: drawing without a generator whose state would have to be kept, and shares that hold exactly."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

MOST_CREDIT = 16.0


def id_hashes(ids: Sequence[str], seed: int) -> np.ndarray:
    """uint64 [ids]: numbers that follow from nothing but the seed and the id."""
    digests = (hashlib.blake2b(f"{seed}|{name}".encode(), digest_size=8).digest() for name in ids)
    return np.frombuffer(b"".join(digests), dtype=np.uint64)


def mixed(values: np.ndarray, salt: int) -> np.ndarray:
    """uint64 values spread anew for each salt: the finaliser of SplitMix64 (Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        z = values.astype(np.uint64) + np.uint64((salt + 1) * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        spread: np.ndarray = z ^ (z >> np.uint64(31))
    return spread


def uniform(seed: int, number: int) -> float:
    """Draw `number` of a stream of uniform numbers in (0, 1)."""
    value = int(mixed(np.array([number], dtype=np.uint64), seed)[0])
    return (value >> 11) / (1 << 53) + 2.0**-54


def truncated_normal(mean: float, width: float, u: float) -> float:
    """Quantile `u` of a normal distribution cut off to [0, 1]."""
    from scipy import special

    low, high = special.ndtr((0 - mean) / width), special.ndtr((1 - mean) / width)
    drawn = mean + width * special.ndtri(low + u * (high - low))
    return float(min(1.0, max(0.0, drawn)))


def least_drawn(rows: np.ndarray, drawn: np.ndarray, hashes: np.ndarray) -> int:
    """Of the rows the one that was drawn least often; ties in an order that is another each time round."""
    counts = drawn[rows]
    fewest = rows[counts == counts.min()]
    return int(fewest[np.argmin(mixed(hashes[fewest], int(counts.min())))])


class Shares:
    """Chooses groups so that their numbers never stray from the shares by a whole draw or more, with no randomness.

    Every draw gives each group its share as credit and takes 1 from the one that has most.
    """

    def __init__(self, groups: int) -> None:
        self.credit = np.zeros(groups)

    def choose(self, shares: np.ndarray, available: np.ndarray) -> int:
        """The next group; what belongs to groups that are not available goes to the others in proportion."""
        assert available.any(), "no group to choose from"
        weights = np.where(available, shares, 0.0)
        weights = weights / weights.sum() if weights.sum() > 0 else available / available.sum()
        self.credit += weights
        choice = int(np.argmax(np.where(available, self.credit, -np.inf)))
        self.credit[choice] -= 1
        return choice

    def give_back(self, group: int) -> None:
        """A draw of this group came to nothing. Up to a bound: a group that always fails must not take every draw."""
        self.credit[group] = min(self.credit[group] + 1, MOST_CREDIT)
