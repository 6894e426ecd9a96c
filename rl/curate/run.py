"""`rl curate`: N attempts per candidate with the SFT policy, scored; the discrepancy rule writes the RL set."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from rl.cluster import connect, scoring_actors
from rl.config.base import save_config
from rl.config.curate import CurateConfig
from rl.curate.select import Candidate, judge
from rl.data.containers import answer_types
from rl.data.formats import read_samples, write_samples
from rl.errors import ConfigError, DataError
from rl.eval.runner import Attempts, attempt_all
from rl.records import RIGHT
from rl.rewarding import problems

RL_SET = "rl_set.parquet"


def check(config: CurateConfig) -> list[str]:
    """Problems that would stop `run`, for --dry-run."""
    wanted = {"model": config.model, "candidates": config.candidates}
    found = [f"{key} {value} does not exist" for key, value in wanted.items() if not Path(value).exists()]
    return found + problems(config.rewards, answer_types((config.candidates,)))


def run(config: CurateConfig) -> Path:
    """Attempt, score, select; returns the path of the RL set.

    Raises:
        DataError: the rule keeps nothing; the message counts the reasons.
    """
    out = Path(config.out)
    save_config(config, out / "config.yaml")
    connect(config.ray_address, config.rollout)
    attempts = asyncio.run(_attempts(config))
    candidates = [judge(a.sample_id, a.source, a.rewards, RIGHT, config.select) for a in attempts]
    _write_attempts(out / "attempts.parquet", attempts)
    _write_table(out / "candidates.parquet", candidates)
    _plot(out, candidates)
    reasons = Counter(candidate.reason for candidate in candidates)
    print(f"curate: {len(candidates)} candidates, " + ", ".join(f"{n} {name}" for name, n in reasons.most_common()))
    kept = {candidate.id: candidate for candidate in candidates if candidate.kept}
    if not kept:
        raise DataError(f"the rule keeps none of {len(candidates)} candidates ({dict(reasons)}); widen `select`")
    samples = [
        replace(sample, extra={**sample.extra, "avg_reward": kept[sample.id].mean_reward})
        for sample in read_samples(config.candidates, on_bad=config.on_bad_row)
        if sample.id in kept
    ]
    write_samples(samples, out / RL_SET)
    return out / RL_SET


async def _attempts(config: CurateConfig) -> list[Attempts]:
    actors = scoring_actors(
        config.rollout, config.rewards, config.model, config.prompts, config.candidates, config.on_bad_row
    )
    async with actors as (pool, rewards, ids):
        held = set((await pool.catalogue(config.candidates))[1].values())
        unknown = sorted(set(config.select.bands) - held)
        if unknown:  # before the attempts, which a wrong name would otherwise cost
            raise ConfigError(
                f"select.bands names sources {unknown} that {config.candidates} does not hold; it holds {sorted(held)}"
            )
        sampling, label = config.rollout.sampling, "attempts"
        return await attempt_all(pool, rewards, config.candidates, ids, config.attempts, sampling, config.seed, label)


def _write_attempts(path: Path, attempts: Sequence[Attempts]) -> None:
    """One row per attempt: id, source, attempt, seed is derived from the id, reward (null if its grader failed)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [
        {
            "id": a.sample_id,
            "source": a.source,
            "attempt": i,
            "reward": reward,
            "status": a.statuses[i],
            "length": a.meta.lengths[i] if a.meta else None,
            "finish_reason": a.meta.finish_reasons[i] if a.meta else None,
        }
        for a in attempts
        for i, reward in enumerate(a.rewards)
    ]
    pq.write_table(pa.Table.from_pylist(rows), path)


def _write_table(path: Path, candidates: Sequence[Candidate]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist([asdict(candidate) for candidate in candidates]), path)


def _plot(out: Path, candidates: Sequence[Candidate]) -> None:
    """The candidates and the region kept, as `candidates.png`."""
    from rl.metrics.files import read_candidates
    from rl.metrics.plots_pipeline import curation
    from rl.metrics.style import png_bytes

    figure = curation(read_candidates(out / "candidates.parquet"))
    if figure is not None:
        (out / "candidates.png").write_bytes(png_bytes(figure))
