"""What does isolation cost, and what does hostile input cost the others?

On the traffic of `benchmarks/reward_traffic.py`, side by side in one run and round by round, on one core's worth of
workers:

- `pool`: `rewards.RewardPool` with one worker, a deadline and a memory limit;
- `direct`: math-verify called in this process, with no isolation and no time limit of its own;
- `alarm`: the same with math-verify's own limit, a SIGALRM that only a main thread can use;
- `executor`: math-verify in a `ProcessPoolExecutor` of one worker, whose worker nothing can kill;
- `fork`: math-verify in a process forked for each call and killed at the deadline.

Then the pool again with a tenth of its traffic replaced by hostile texts, and E-SMILES keys on one core.

    python benchmarks/rewards.py [--groups 40] [--rounds 3]

The last line printed is JSON. Latencies are of single calls, rates of whole batches.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import psutil
from reward_traffic import Request as Triple
from reward_traffic import traffic

from rewards import Request, RewardPool, esmiles
from rewards.conformance import hostile
from rewards.extract import final_answer
from rl.metrics.tracker import environment

DEADLINE_S = 1.0
POISON_SHARE = 0.1
SLOW_CALLS = 100
"""Calls of the ways that start a process each time."""


def math_verify(item: Triple, limit: int | None = None) -> bool:
    """parse, parse and verify, as its README calls them; on the same extracted answer that ours grades."""
    from math_verify import parse, verify

    completion, gold, _ = item
    answer = final_answer(completion)
    if answer is None:
        return False
    want = parse(f"${gold}$", parsing_timeout=limit)
    got = parse(f"${answer}$", parsing_timeout=limit)
    return bool(verify(want, got, timeout_seconds=limit))


def in_fork(item: Triple) -> None:
    process = multiprocessing.get_context("fork").Process(target=math_verify, args=(item,))
    process.start()
    process.join(DEADLINE_S)
    if process.is_alive():
        process.kill()
        process.join()
    process.close()


def timed(call: Callable[[Any], object], items: Sequence[Any]) -> dict[str, Any]:
    """Calls a second, and milliseconds of the median and the slowest hundredth call."""
    times = []
    for item in items:
        start = time.perf_counter()
        call(item)
        times.append(time.perf_counter() - start)
    return {"per_s": len(times) / sum(times), **quantiles(times)}


def quantiles(seconds: Sequence[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    return {
        "p50_ms": round(1000 * ordered[len(ordered) // 2], 3),
        "p99_ms": round(1000 * ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))], 3),
    }


def children_mb() -> float:
    """Unique memory of this process's children, in MiB."""
    return sum(child.memory_full_info().uss for child in psutil.Process().children(recursive=True)) / 2**20


def to_requests(items: Sequence[Triple]) -> list[Request]:
    return [Request(completion, gold, kind) for completion, gold, kind in items]


def poisoned(items: Sequence[Triple], seed: int) -> list[Triple]:
    """A tenth of the completions replaced by hostile ones, spread at random."""
    generator, bad = random.Random(seed), [text for _, text in hostile.completions()]
    return [
        (generator.choice(bad), gold, kind) if generator.random() < POISON_SHARE else (completion, gold, kind)
        for completion, gold, kind in items
    ]


def pool_round(pool: RewardPool, items: Sequence[Triple]) -> dict[str, Any]:
    requests = to_requests(items)
    start = time.perf_counter()
    results = pool.score_many(requests)
    seconds = time.perf_counter() - start
    single = timed(lambda request: pool.score_many([request]), requests[: len(requests) // 4])
    statuses = {status: sum(r.status == status for r in results) for status in {r.status for r in results}}
    return {
        "per_s": len(requests) / seconds,
        "p50_ms": single["p50_ms"],
        "p99_ms": single["p99_ms"],
        "status": statuses,
    }


def poison_round(pool: RewardPool, clean: Sequence[Triple], seed: int) -> dict[str, Any]:
    """Honest completions graded a second, alone and among hostile ones: what the honest ones lose."""
    mixed = poisoned(clean, seed)
    start = time.perf_counter()
    pool.score_many(to_requests(clean))
    alone = len(clean) / (time.perf_counter() - start)
    start = time.perf_counter()
    results = pool.score_many(to_requests(mixed))
    seconds = time.perf_counter() - start
    return {
        "clean_per_s": alone,
        "mixed_per_s": len(mixed) / seconds,
        "share_of_clean": len(mixed) / seconds / alone,
        "slowest_status": {s: sum(r.status == s for r in results) for s in {r.status for r in results}},
    }


def esmiles_rate() -> float:
    """Keys a second of E-SMILES with rings, substituents and abstract parts, none seen before."""
    texts = [f"*c1ccc({'C' * (i % 7 + 1)}O)c{'N' * (i % 3)}c1<sep><a>0:R[{i}]</a>" for i in range(3000)]
    start = time.perf_counter()
    keys = [esmiles.key(text) for text in texts]
    seconds = time.perf_counter() - start
    assert sum(key is not None for key in keys) > len(texts) / 4
    return len(texts) / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", type=int, default=40, help="prompts of 16 completions a round")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in ("pool", "direct", "alarm", "executor", "fork")}
    poison, memory = [], {}
    pool = RewardPool(workers=1, timeout_s=DEADLINE_S, preload=["math-expressions"])
    memory["pool"] = children_mb()
    before = memory["pool"]
    executor = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork"))
    math_verify(("<answer>1</answer>", "1", ""))  # its imports are no part of any figure
    executor.submit(math_verify, ("<answer>1</answer>", "1", "")).result()
    memory["executor"] = children_mb() - before
    for seed in range(args.rounds):
        items = traffic(args.groups, 16, seed)
        rounds["pool"].append(pool_round(pool, items))
        rounds["direct"].append(timed(math_verify, items))
        rounds["alarm"].append(timed(lambda item: math_verify(item, 1), items))
        rounds["executor"].append(timed(lambda item: executor.submit(math_verify, item).result(), items))
        rounds["fork"].append(timed(in_fork, items[:SLOW_CALLS]))
        poison.append(poison_round(pool, items, seed))
        print(f"round {seed + 1}/{args.rounds}: " + ", ".join(f"{n} {r[-1]['per_s']:.0f}/s" for n, r in rounds.items()))
    pool.close()
    executor.shutdown()
    print(json.dumps(summary(rounds, poison, memory)))


def summary(
    rounds: dict[str, list[dict[str, Any]]], poison: Sequence[dict[str, Any]], memory: dict[str, float]
) -> dict[str, Any]:
    """Medians over rounds; ratios are medians of each round's own ratio."""
    median = {
        name: {key: round(statistics.median(r[key] for r in results), 3) for key in ("per_s", "p50_ms", "p99_ms")}
        for name, results in rounds.items()
    }
    ratios = {
        name: round(statistics.median(a["per_s"] / b["per_s"] for a, b in zip(rounds["pool"], results, strict=True)), 2)
        for name, results in rounds.items()
        if name != "pool"
    }
    return {
        "benchmark": "rewards",
        "per_core": median,
        "pool_against": ratios,
        "memory_mb": {name: round(value, 1) for name, value in memory.items()},
        "poison": {
            "share": POISON_SHARE,
            "throughput_kept": round(statistics.median(r["share_of_clean"] for r in poison), 3),
            "rounds": poison,
        },
        "pool_status": rounds["pool"][-1]["status"],
        "esmiles_keys_per_s": round(esmiles_rate()),
        "environment": environment(),
    }


if __name__ == "__main__":
    main()
