"""What does isolation cost? Start of a sandbox, further commands in it, and the same without isolation.

    python benchmarks/sandbox.py --runs 50

Measures an empty Python program. Processor time is that of all processes involved; on a machine that has other work it
says more than wall time. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from rewards.sandbox import PYTHON_FLAGS, Command, Isolation, Sandbox


def cpu_seconds() -> float:
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_CHILDREN, resource.RUSAGE_SELF)]
    return sum(usage.ru_utime + usage.ru_stime for usage in spent)


def measure(job: Callable[[], object], runs: int, per_run: int = 1) -> dict[str, float]:
    """Milliseconds of each of `per_run` parts of a job: wall (median and fastest) and processor time (mean)."""
    job()
    cpu, walls = cpu_seconds(), []
    for _ in range(runs):
        start = time.perf_counter()
        job()
        walls.append((time.perf_counter() - start) / per_run * 1e3)
    return {
        "wall_ms": round(statistics.median(walls), 1),
        "fastest_ms": round(min(walls), 1),
        "cpu_ms": round((cpu_seconds() - cpu) / runs / per_run * 1e3, 1),
    }


def throughput(box: Sandbox, threads: int, runs: int) -> float:
    start = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda _: box.run_python("pass"), range(runs)))
    return round(runs / (time.perf_counter() - start), 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=50)
    runs = parser.parse_args().runs
    threads = os.cpu_count() or 1
    found: dict[str, object] = {"cores": threads, "load": os.getloadavg()[0]}
    modes: tuple[Isolation, ...] = ("namespaces", "none")
    for mode in modes:
        box = Sandbox(mode)
        commands = [Command([box.python, *PYTHON_FLAGS, "-c", "pass"])] * 20
        found[mode] = {
            "fresh": measure(partial(box.run_python, "pass"), runs),
            "further": measure(partial(box.run, commands), max(1, runs // 10), 20),
            "runs_per_s": throughput(box, threads, runs),
        }
        print(mode, found[mode])
    print(json.dumps(found))


if __name__ == "__main__":
    main()
