"""How long, and in how much memory, `rl curate select` and the near-duplicates of `rl curate clean` take.

Regime: CPU only, one process per measurement, files in the page cache. `select` reads names and attempts from parquet
and writes every output; candidates have no images, which `select` never reads for rows that it drops. Side by side
stands the plain way with `datasets`: one `map` to the pass rates, one `filter` by the same rule, over rows that already
hold their rewards in a list, which spares it the grouping. The plain way to near duplicates is one `map` to pieces and
one `filter` with a MinHash index that remembers what it has seen.

    python benchmarks/curate.py --candidates 1000000 --attempts 16
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from math import comb
from pathlib import Path
from typing import Any

import numpy as np

from rl.metrics.environment import environment

SHARD_ROWS = 500_000
RULE = {"pass_k": 8, "min_pass_at_k": 0.5, "max_pass_at_1": 0.75, "band": {"above": 0.0, "below": 0.6}}


def make(folder: Path, candidates: int, attempts: int) -> None:
    """Write candidates, attempts and the grouped rows of the plain way; solve rates are spread over [0, 1]."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from rl.curate.attempts import schema

    rng = np.random.default_rng(0)
    ids = [f"pool_{i:08d}" for i in range(candidates)]
    kinds = ("stem", "coding", "general", "science", "spatial-reasoning", "grounding", "counting", "ocr")
    columns = {
        "id": ids,
        "problem": [f"Question number {i} of the pool?" for i in range(candidates)],
        "answer": [["4"]] * candidates,
        "problem_type": [kinds[i % 8] for i in range(candidates)],
        "answer_type": ["number"] * candidates,
        "source": [f"source-{i % 40}" for i in range(candidates)],
    }
    pq.write_table(pa.table(columns), folder / "candidates.parquet")
    right = (rng.random((candidates, attempts)) < rng.beta(0.5, 0.5, (candidates, 1))).astype(float)
    rows = pa.table({"id": ids, "rewards": pa.FixedSizeListArray.from_arrays(right.ravel(), attempts)})
    pq.write_table(rows, folder / "grouped.parquet")
    (folder / "attempts").mkdir()
    lengths = rng.integers(100, 8000, (candidates, attempts), dtype=np.int32)
    step = SHARD_ROWS // attempts
    for number, start in enumerate(range(0, candidates, step)):
        part = slice(start, start + step)
        count = len(ids[part]) * attempts
        values: list[Any] = [
            np.repeat(np.array(ids[part], dtype=object), attempts),
            ["policy"] * count,
            np.tile(np.arange(attempts, dtype=np.int16), len(ids[part])),
            np.arange(count, dtype=np.int64),
            right[part].ravel(),
            ["ok"] * count,
            lengths[part].ravel(),
            ["stop"] * count,
            ["4"] * count,
        ]
        table = pa.table(dict(zip(schema().names, values, strict=True)), schema=schema())
        pq.write_table(table, folder / "attempts" / f"part-{number:06d}.parquet", compression="zstd")


def select_ours(folder: Path) -> int:
    from rl.config.base import parse_config
    from rl.config.curate import SelectionConfig
    from rl.curate.selection import run
    from rl.data.catalogue import read_catalogue

    raw = {"candidates": str(folder / "candidates.parquet"), "attempts": [str(folder)], "select": RULE}
    target = run(parse_config(SelectionConfig, raw | {"out": str(folder / "out")}))
    assert target is not None
    return len(read_catalogue(target))


def select_plain(folder: Path) -> int:
    import datasets

    def rates(row: dict[str, Any]) -> dict[str, float]:
        right, n = sum(value >= 0.5 for value in row["rewards"]), len(row["rewards"])
        return {"p1": right / n, "pk": 1 - comb(n - right, 8) / comb(n, 8), "mean": sum(row["rewards"]) / n}

    def good(row: dict[str, Any]) -> bool:
        return row["pk"] >= 0.5 and row["p1"] <= 0.75 and 0 < row["mean"] < 0.6

    rows = datasets.load_dataset("parquet", data_files=str(folder / "grouped.parquet"), cache_dir=str(folder / "hf"))
    kept = rows["train"].map(rates).filter(good)
    kept.to_parquet(str(folder / "plain.parquet"))
    return len(kept)


def make_texts(folder: Path, rows: int) -> None:
    """Write text problems of 20 to 60 words, of which every tenth repeats an earlier one but for a word or two."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(1)
    vocabulary = np.array(["".join(chr(97 + c) for c in rng.integers(0, 26, n)) for n in rng.integers(3, 10, 20_000)])
    problems: list[str] = []
    for number in range(rows):
        if number % 10 == 9:
            words = problems[int(rng.integers(0, number))].split()
            words[int(rng.integers(0, len(words)))] = str(vocabulary[rng.integers(0, len(vocabulary))])
        else:
            words = vocabulary[rng.integers(0, len(vocabulary), int(rng.integers(20, 60)))].tolist()
        problems.append(" ".join(words))
    columns = {"id": [f"text_{i}" for i in range(rows)], "problem": problems, "answer": [["4"]] * rows}
    columns |= {"problem_type": ["stem"] * rows, "answer_type": ["number"] * rows, "source": ["texts"] * rows}
    pq.write_table(pa.table(columns), folder / "texts.parquet")


def clean_ours(folder: Path) -> int:
    from rl.config.base import parse_config
    from rl.config.clean import CleanConfig
    from rl.curate.clean import run
    from rl.data.catalogue import read_catalogue

    raw = {"data": str(folder / "texts.parquet"), "out": str(folder / "clean"), "golds": {"verify": False}}
    return len(read_catalogue(run(parse_config(CleanConfig, raw))))


def clean_plain(folder: Path) -> int:
    import datasets
    import rensa

    seen = rensa.RMinHashDeduplicator(threshold=0.7, num_perm=128, use_lsh=True)

    def pieces(row: dict[str, Any]) -> dict[str, list[str]]:
        text = row["problem"].lower()
        return {"pieces": [text[i : i + 5] for i in range(len(text) - 4)]}

    def fresh(row: dict[str, Any]) -> bool:
        return bool(seen.add_pairs([(row["id"], row["pieces"])])[0])

    rows = datasets.load_dataset("parquet", data_files=str(folder / "texts.parquet"), cache_dir=str(folder / "hf"))
    kept = rows["train"].map(pieces).filter(fresh, load_from_cache_file=False).remove_columns("pieces")
    kept.to_parquet(str(folder / "plain.parquet"))
    return len(kept)


TASKS = {
    "select_ours": select_ours,
    "select_plain": select_plain,
    "clean_ours": clean_ours,
    "clean_plain": clean_plain,
}


def measure(name: str, folder: Path) -> dict[str, Any]:
    """Run a task in a process of its own: its seconds with imports, CPU seconds, and the most memory it held."""
    command = [sys.executable, __file__, "--task", name, "--folder", str(folder)]
    started = time.monotonic()
    quiet = os.environ | {"HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=quiet)
    result = json.loads(done.stdout.splitlines()[-1])
    return {"seconds": round(time.monotonic() - started, 2), **result}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, default=1_000_000)
    parser.add_argument("--attempts", type=int, default=16)
    parser.add_argument("--only", nargs="*", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--task", choices=list(TASKS), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.task:
        kept = TASKS[args.task](args.folder)
        used = resource.getrusage(resource.RUSAGE_SELF)
        cpu = round(used.ru_utime + used.ru_stime, 2)
        print(json.dumps({"cpu_seconds": cpu, "rows_out": kept, "peak_mb": round(used.ru_maxrss / 1024)}))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if any(task.startswith("select") for task in args.only):
            make(folder, args.candidates, args.attempts)
        if any(task.startswith("clean") for task in args.only):
            make_texts(folder, args.candidates)
        results = {task: measure(task, folder) for task in args.only}
    for task, result in results.items():
        times = f"{result['seconds']:8.1f} s {result['cpu_seconds']:8.1f} CPU s"
        print(f"{task:14} {times} {result['peak_mb']:6} MB  {result['rows_out']} rows out")
    sizes = {"candidates": args.candidates, "attempts": args.attempts}
    print(json.dumps({"benchmark": "curate", **sizes, **results, "environment": environment()}))


if __name__ == "__main__":
    main()
