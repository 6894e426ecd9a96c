"""Completions that broke down: garbled text, and text that repeats itself without end.

As Intern-S1's online filter (arXiv 2508.15763) these keep such responses out of training; the rules are
ours. Both take time about linear in the number of tokens.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from typing import Literal

import numpy as np

from rl.config.objective import FilterConfig, TextChecksConfig

Defect = Literal["garbled", "repeating"]

_BAD = frozenset({"Cc", "Co", "Cn", "Cs"})
_WHITESPACE = frozenset("\t\n\r\f\v")
_NGRAM = 8
"""Tokens that make a passage: shorter ones stand again in any text."""
_HASH = np.uint64(0x9E3779B97F4A7C15)


def find_defect(text: str, token_ids: np.ndarray, logprobs: np.ndarray, config: FilterConfig) -> Defect | None:
    """The first defect of a completion that the config asks about.

    Args:
        text: without special tokens.
        token_ids: int [T], the sampled ids.
        logprobs: float [T], behaviour logprobs in nats.
    """
    if config.repeating != "off" and is_repeating(token_ids, config.checks):
        return "repeating"
    if config.garbled != "off" and is_garbled(text, logprobs, config.checks):
        return "garbled"
    return None


def is_garbled(text: str, logprobs: np.ndarray, config: TextChecksConfig) -> bool:
    """Whether too many characters mean nothing, or the policy was surprised by `surprise_window` tokens in a row.

    A stop in the middle of a character leaves replacement characters at the very end; they are not counted.
    """
    characters = Counter(text.rstrip("\ufffd"))
    bad = sum(count for character, count in characters.items() if _means_nothing(character))
    if bad > config.bad_characters * characters.total():
        return True
    window = config.surprise_window
    if len(logprobs) < window:
        return False
    sums = np.concatenate([[0.0], np.cumsum(logprobs, dtype=np.float64)])
    return bool(((sums[window:] - sums[:-window]) / window).min() < -config.surprise_nats)


def _means_nothing(character: str) -> bool:
    return character == "\ufffd" or (character not in _WHITESPACE and unicodedata.category(character) in _BAD)


def is_repeating(token_ids: np.ndarray, config: TextChecksConfig) -> bool:
    """Whether a passage stands `repeat_times` or more in a row, over at least `repeat_tokens` tokens.

    For passages of up to p tokens, p = 8, 16, 32, ...: in a run of max(repeat_tokens, repeat_times * p) tokens, at
    least `repeat_share` of the 8-grams stood within the p tokens before. A question that is copied once is no such run;
    a loop that changes a token in every long round still is, since each change costs 8 of the 8-grams only.
    """
    distances = _ngram_distances(np.asarray(token_ids))
    period = _NGRAM
    while (run := max(config.repeat_tokens, config.repeat_times * period)) <= len(distances):
        close = np.concatenate([[0], np.cumsum(distances <= period)])
        if (close[run:] - close[:-run]).max() >= config.repeat_share * run:
            return True
        period *= 2
    return False


def _ngram_distances(token_ids: np.ndarray) -> np.ndarray:
    """int64 [T - 7]: how many tokens before each 8-gram the same one last began; a large number for the first."""
    count = len(token_ids) - _NGRAM + 1
    if count <= 0:
        return np.empty(0, dtype=np.int64)
    hashes = np.zeros(count, dtype=np.uint64)
    with np.errstate(over="ignore"):
        for offset in range(_NGRAM):
            ids = token_ids[offset : offset + count].astype(np.uint64) + np.uint64(1)
            hashes = (hashes ^ ids) * _HASH
            hashes ^= hashes >> np.uint64(29)
    order = np.argsort(hashes, kind="stable")
    same = hashes[order][1:] == hashes[order][:-1]
    distances = np.full(count, np.iinfo(np.int64).max)
    distances[order[1:][same]] = (order[1:] - order[:-1])[same]
    return distances
