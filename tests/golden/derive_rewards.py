"""Derives the golden vectors of advantages, filters, proximal logprobs and the choice of tokens.

    python -m tests.golden.derive_rewards     # rewrites the files next to it

Nothing of the project is imported. Numbers are exact fractions or 50-digit decimals; verdicts of filters are stated by
hand in each case, with the reason.
"""

from __future__ import annotations

import json
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

from tests.golden.filter_cases import FILTERS, TEXT
from tests.golden.peers import PEERS

Case = dict[str, Any]


def rloo(name: str, why: str, rewards: list[float | None], bias: float = 0.0, scale: float = 1.0) -> Case:
    """Leave one out, literally: each reward less the mean of the others."""
    values = [
        None if reward is None else (Fraction(str(reward)) + Fraction(str(bias))) * Fraction(str(scale))
        for reward in rewards
    ]
    expected: list[float | None] = []
    steps = [why]
    for i, value in enumerate(values):
        others = [other for j, other in enumerate(values) if j != i and other is not None]
        if value is None:
            expected.append(None)
            continue
        result = value - sum(others, Fraction(0)) / len(others) if others else Fraction(0)
        expected.append(float(result))
        steps.append(f"Reward {i}: {value} less the mean of {[str(other) for other in others]} = {result}.")
    config = {"bias": bias, "scale": scale, "group": "rloo"}
    return {"name": name, "derivation": steps, "config": config, "rewards": rewards, "expected": expected}


RLOO = [
    rloo(
        "one_right_of_four", "Others of the right one: mean 0; others of a wrong one: mean 1/3.", [1.0, 0.0, 0.0, 0.0]
    ),
    rloo("graded", "Rewards in between.", [1.0, 0.0, 0.5]),
    rloo("scaled", "Bias cancels, scale does not.", [1.0, 0.0, 0.5], -0.5, 10.0),
    rloo("failed_grader", "A failed grader is in nobody's mean.", [1.0, None, 0.0, 0.25]),
    rloo("alone", "One reward has no others: no advantage.", [None, 1.0]),
]


def proximal(name: str, why: str, age: list[int], done: str) -> Case:
    """log proximal = log behaviour + age / (age + done) * (log current - log behaviour)."""
    behaviour = [Decimal("-1.0"), Decimal("-2.5"), Decimal("-0.4")]
    current = [Decimal("-0.5"), Decimal("-3.0"), Decimal("-0.1")]
    steps, expected = [why], []
    for t, (b, c, a) in enumerate(zip(behaviour, current, age, strict=True)):
        distance = a + Decimal(done)
        share = Decimal(1) if distance == 0 else a / distance
        expected.append(float(b + share * (c - b)))
        steps.append(f"Token {t}: {a} of {distance} versions: {float(share):.10g} of the way.")
    inputs = {"behaviour": [float(v) for v in behaviour], "current": [float(v) for v in current], "age": age}
    return {"name": name, "derivation": steps, "inputs": {**inputs, "done": float(done)}, "expected": expected}


PROXIMAL = [
    proximal(
        "second_of_two_updates", "The current policy is half a version ahead of the proximal one.", [0, 1, 3], "0.5"
    ),
    proximal("last_of_four", "Three quarters ahead.", [0, 2, 5], "0.75"),
    proximal("first_update", "Nothing was updated yet: the current policy is the proximal one.", [0, 1, 4], "0"),
]


def splitmix64(state: int) -> int:
    """The output function of SplitMix64 on state + its increment."""
    mask = 2**64 - 1
    value = (state + 0x9E3779B97F4A7C15) & mask
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & mask
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & mask
    return value ^ (value >> 31)


def priority(key: int, position: int) -> float:
    """Draw `position` of the generator seeded with the hash of `key`, as a number in [0, 1)."""
    state = (splitmix64(key) + position * 0x9E3779B97F4A7C15) % 2**64
    return (splitmix64(state) >> 11) / 2**53


def selection(name: str, why: str, config: Case, keys: list[int], lengths: list[int]) -> Case:
    per_sequence = [Fraction("2"), Fraction("-1"), Fraction("0.5")]
    advantages = [a for a, n in zip(per_sequence, lengths, strict=True) for _ in range(n)]
    logprobs = [-Fraction((7 * i * i) % 23, 4) for i in range(sum(lengths))]
    count = len(logprobs)
    mean_a, mean_l = sum(advantages, Fraction(0)) / count, sum(logprobs, Fraction(0)) / count
    covariance = [(a - mean_a) * (x - mean_l) for a, x in zip(advantages, logprobs, strict=True)]
    draws = [priority(key, t) for key, n in zip(keys, lengths, strict=True) for t in range(n)]
    if config["control"] == "kl_cov":
        eligible = [value > 0 for value in covariance]
        rank = [float(value) for value in covariance]
    else:
        eligible = [Fraction(str(config["low"])) < v < Fraction(str(config["high"])) for v in covariance]
        rank = draws
    budget = max(1, int(Fraction(str(config["share"])) * count))
    order = sorted((i for i in range(count) if eligible[i]), key=lambda i: -rank[i])[:budget]
    steps = [
        why,
        f"{count} tokens, mean advantage {mean_a}, mean logprob {mean_l}; {sum(eligible)} eligible, {budget} at most.",
        f"Chosen, highest first: {order}.",
    ]
    return {
        "name": name,
        "derivation": steps,
        "config": config,
        "inputs": {
            "advantages": [float(v) for v in advantages],
            "logprobs": [float(v) for v in logprobs],
            "keys": keys,
            "lengths": lengths,
        },
        "expected": {
            "covariances": [float(v) for v in covariance],
            "priorities": draws,
            "selected": [i in order for i in range(count)],
        },
    }


KL_COV, CLIP_COV = {"control": "kl_cov", "share": 0.2}, {"control": "clip_cov", "share": 0.2, "low": 0.5, "high": 3.0}
SELECTION = [
    selection("kl_cov", "The highest covariances.", KL_COV, [0, 1, 2], [5, 7, 4]),
    selection(
        "kl_cov_at_least_one", "A share below one token is one token.", {**KL_COV, "share": 2e-4}, [0, 1, 2], [5, 7, 4]
    ),
    selection(
        "kl_cov_few_positive",
        "A share of 1 takes all positive covariances.",
        {**KL_COV, "share": 1.0},
        [0, 1, 2],
        [5, 7, 4],
    ),
    selection("clip_cov", "A random draw between the bounds.", CLIP_COV, [0, 1, 2], [5, 7, 4]),
    selection("clip_cov_other_keys", "Other completions, other draws.", CLIP_COV, [2**20, 2**40 + 3, 77], [5, 7, 4]),
    selection(
        "clip_cov_none",
        "No covariance between the bounds: none chosen.",
        {**CLIP_COV, "low": 50, "high": 60},
        [0, 1, 2],
        [5, 7, 4],
    ),
]


def overlong(name: str, why: str, length: int, max_tokens: int, buffer: int, penalty: str) -> Case:
    start = max_tokens - buffer
    if length <= start:
        value = Fraction(0)
    elif length <= max_tokens:
        value = Fraction(start - length, buffer) * Fraction(penalty)
    else:
        value = -Fraction(penalty)
    steps = [why, f"The punishment starts at {start} and is full at {max_tokens}: {value}."]
    config = {"buffer": buffer, "penalty": float(penalty)}
    return {
        "name": name,
        "derivation": steps,
        "config": config,
        "length": length,
        "max_tokens": max_tokens,
        "expected": float(value),
    }


OVERLONG = [
    overlong("short", "Far below.", 100, 20480, 4096, "1"),
    overlong("at_the_start", "The first length with a punishment is one more.", 16384, 20480, 4096, "1"),
    overlong("half_way", "The paper's numbers.", 18432, 20480, 4096, "1"),
    overlong("at_the_limit", "Truncated, as a rule.", 20480, 20480, 4096, "1"),
    overlong("beyond", "Never below the full punishment.", 30000, 20480, 4096, "1"),
    overlong("half_penalty", "Three quarters of the way of 0.5.", 95, 100, 20, "0.5"),
]


def contents() -> dict[str, Case]:
    """File name -> content."""
    files: dict[str, tuple[str, list[Case]]] = {
        "rloo": ("arXiv 2402.14740", RLOO),
        "proximal": ("AReaL documentation, Proximal Log-Probability Approximation, loglinear", PROXIMAL),
        "covariance_selection": ("arXiv 2505.22617; SplitMix64: Steele, Lea and Flood 2014", SELECTION),
        "overlong": ("DAPO, arXiv 2503.14476, eq. 13", OVERLONG),
        "filters": ("rl.algo.filters; reasons of whole groups as in DAPO's dynamic sampling", FILTERS),
        "text_checks": ("the rules of rl.algo.text_checks, worked by hand", TEXT),
    }
    return {
        name: {"source": source, "peers": PEERS.get(name, []), "tolerance": 1e-06, "cases": cases}
        for name, (source, cases) in files.items()
    }


if __name__ == "__main__":
    for file, content in contents().items():
        target = Path(__file__).parent / f"{file}.json"
        target.write_text(json.dumps(content, indent=1) + "\n")
