"""`rl train`: bring up the actors, evaluate, train, evaluate, and account for every prompt."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from rl.algo.advantages import load_group_function
from rl.algo.plugins import load_function
from rl.cluster import LearnerGroup, RewardClient, RolloutPool, bring_up, connect, describe_failure
from rl.config.base import save_config
from rl.config.train import TrainConfig
from rl.curate.starts import prompt_source
from rl.data.containers import answer_types
from rl.data.store import PromptSource
from rl.errors import ConfigError
from rl.ledger import Ledger
from rl.loop import Loop, compare_probe
from rl.metrics.console import RunTable
from rl.metrics.report import write_report
from rl.metrics.summary import build_summary
from rl.metrics.tracker import Tracker
from rl.rewarding import problems
from rl.rollout.worker import PromptTask
from rl.run_io import RunIO, complete_checkpoints, latest_checkpoint


def check(config: TrainConfig) -> list[str]:
    """Problems that would stop `run`, for --dry-run."""
    wanted = {"model": config.model, "data.train": config.data.train, "data.eval": config.data.eval}
    if config.algo.loss.reference is not None:
        wanted["algo.loss.reference.model"] = config.algo.loss.reference.model
    if config.data.curriculum is not None:
        folders = enumerate(config.data.curriculum.attempts)
        wanted |= {f"data.curriculum.attempts.{i}": folder for i, folder in folders}
    found = [f"{key} {value} does not exist" for key, value in wanted.items() if value and not Path(value).exists()]
    for path, role in ((config.algo.loss.name, "loss"), (config.algo.advantages.group, "advantages")):
        if ":" in path:
            try:
                load_function(path, role)
            except ConfigError as exc:
                found.append(str(exc))
    return found + problems(config.rewards, answer_types((config.data.train, config.data.eval)))


def run(config: TrainConfig, resume: bool = False) -> Path:
    """Train; returns the run folder. See `rl.loop.Loop.run` for what is raised."""
    out = Path(config.out)
    if not resume and ((out / "metrics.jsonl").exists() or complete_checkpoints(out)):
        remedy = "continue it with --resume" if complete_checkpoints(out) else "it has no checkpoint yet: remove it"
        raise ConfigError(f"{out} holds a run already; {remedy}, or set another `out`")
    found = latest_checkpoint(out) if resume else None
    load_group_function(config.algo.advantages)  # user code that can't be imported should not wait for the first step
    save_config(config, out / "config.yaml")
    connect(config.ray_address, config.rollout, config.learner)
    asyncio.run(_run(config, found))
    build_summary(out)
    write_report(out)
    return out


async def _run(config: TrainConfig, found: tuple[Path, dict[str, Any]] | None) -> None:
    begun = time.time()
    started = found[1]["started"] if found else begun
    datasets = [path for path in (config.data.train, config.data.eval) if path]
    pool = RolloutPool(config.rollout, config.model, config.data.prompts, datasets, config.data.on_bad_row)
    learner = LearnerGroup(config)
    rewards: RewardClient | None = None
    tracker = Tracker.from_config(Path(config.out), config.tracker, found[1]["rows"] if found else None)
    try:
        await bring_up({"rollout workers": pool.ready(), "learner": learner.start()}, config.stall_timeout_s)
        catalogues = [await pool.catalogue(path) for path in datasets]
        ids = catalogues[0][0]
        rewards = RewardClient(config.rewards, sorted({name for catalogue in catalogues for name in catalogue[2]}))
        await bring_up({"reward workers": rewards.ready()}, config.stall_timeout_s)
        ledger, prompts = Ledger(tracker.fate), prompt_source(config, ids)
        with RunTable(config.steps) as table:
            io = RunIO(config, tracker, table, started)
            io.timeline("sync", "start", begun, time.time())
            if config.data.eval:
                io.eval_ids = catalogues[1][0]
            version = await _restore(found, pool, learner, rewards, ledger, prompts)
            probe = await _make_probe(config, pool, learner, ids)
            await compare_probe(pool, probe, version, config.probe.threshold)
            if version == 0:
                await io.evaluate(pool, rewards, 0)
            requeued = found[1]["requeued"] if found else ()
            loop = Loop(config, pool, rewards, learner, prompts, ledger, io, version, ledger.in_flight, requeued)
            try:
                await loop.run()
                # What is still in flight would compete with the evaluation; it is on record, and a resume samples it.
                await pool.each("abort", [admission.uid for admission in ledger.in_flight])
                await io.evaluate(pool, rewards, config.steps)
                await io.checkpoint(config.steps, learner, rewards, prompts, ledger, loop.requeued)
            finally:
                ledger.finish()
    except Exception as exc:
        cause = describe_failure(exc)
        if cause is exc:
            raise
        raise cause from exc
    finally:
        tracker.close()
        parts = [part for part in (pool, learner, rewards) if part is not None]
        await asyncio.gather(*(part.close() for part in parts))


async def _restore(
    found: tuple[Path, dict[str, Any]] | None,
    pool: RolloutPool,
    learner: LearnerGroup,
    rewards: RewardClient,
    ledger: Ledger,
    prompts: PromptSource,
) -> int:
    """Load a checkpoint into every part; returns the version to go on from."""
    if found is None:
        return 0
    folder, state = found
    version = await learner.load(str(folder.absolute()))
    await pool.each("update_weights", await learner.publish())
    ledger.load_state_dict(state["ledger"])
    prompts.load_state_dict(state["prompts"])
    await rewards.load_state_dict(state["rewards"])
    return version


async def _make_probe(config: TrainConfig, pool: RolloutPool, learner: LearnerGroup, ids: tuple[str, ...]) -> Any:
    """Fix the sequences on which engine and learner are compared after each push: spread over the dataset.

    Returns a reference to the learner's logprobs of them.
    """
    count = min(config.probe.prompts, len(ids))
    chosen = [ids[i * len(ids) // count] for i in range(count)]
    # Scoring a sequence samples one token more, so a probe sequence must not fill the context.
    sampling = config.rollout.sampling.model_copy(
        update={"max_tokens": min(256, config.rollout.sampling.max_tokens - 1)}
    )
    tasks = [
        PromptTask(i, config.data.train, sample_id, 1, i, sampling, tag="probe") for i, sample_id in enumerate(chosen)
    ]
    groups = pool.actors[0].make_probe.remote(tasks)
    for actor in pool.actors[1:]:
        await actor.set_probe.remote(tasks, groups)
    return await learner.set_probe(groups)
