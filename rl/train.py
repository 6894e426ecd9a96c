"""`rl train`: bring up the actors, evaluate, train, evaluate, and account for every prompt."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from rl.algo.advantages import load_group_function
from rl.algo.plugins import load_function
from rl.checkpoint_folder import Checkpoint, checkpoint_before, complete_checkpoints, how_to_go_on, set_aside_newer
from rl.cluster import RewardClient, RolloutPool
from rl.config.base import dump_yaml, read_yaml, save_config
from rl.config.train import TrainConfig
from rl.control import serve
from rl.curate.starts import prompt_source
from rl.data import containers
from rl.data.store import PromptSource
from rl.errors import ActorLostError, CheckpointError, ConfigError, DataError, StoppedError, TornCheckpointError
from rl.failures import describe_failure, remote_causes
from rl.interruptible import run_interruptible
from rl.learner_group import LearnerGroup
from rl.ledger import Ledger
from rl.loop import Loop, compare_probe
from rl.metrics.console import RunTable
from rl.metrics.files import CONFIG, MIXTURE
from rl.metrics.summary import print_final
from rl.metrics.tracker import Tracker, check_rows
from rl.models.context import context_problems
from rl.nodes import bring_up, connect
from rl.reward_setup import Carried, carry, check_mixture, check_tasks, problems
from rl.rollout.worker import PromptTask
from rl.run_folder import check_steps, claimed, compare_settings, folder_problems, holds_rows, set_aside
from rl.run_io import STATE_KEYS, RunIO, finished_groups, latest_checkpoint
from rl.stopping import CutShortError, unless
from rl.watch import waiting, watching
from rl.workers import Pool, handle

logger = logging.getLogger(__name__)


def check(config: TrainConfig) -> list[str]:
    """Problems that would stop `run`, for --dry-run."""
    wanted = {"model": config.model, "data.train": config.data.train, "data.eval": config.data.eval}
    if config.algo.loss.reference is not None:
        wanted["algo.loss.reference.model"] = config.algo.loss.reference.model
    if config.data.curriculum is not None:
        folders = enumerate(config.data.curriculum.attempts)
        wanted |= {f"data.curriculum.attempts.{i}": folder for i, folder in folders}
    found = [f"{key} {value} does not exist" for key, value in wanted.items() if value and not Path(value).exists()]
    found += folder_problems(config.out) + _input_problems(config)
    found += context_problems(config.model, config.rollout.engine.max_model_len) + config.tracker.problems()
    for path, role in ((config.algo.loss.name, "loss"), (config.algo.advantages.group, "advantages")):
        if ":" in path:
            try:
                load_function(path, role)
            except ConfigError as exc:
                found.append(str(exc))
    return found + problems(
        config.rewards, containers.answer_types((config.data.train, config.data.eval)), trained=config.data.train
    )


def _input_problems(config: TrainConfig) -> list[str]:
    """What is wrong with a model or a dataset that exists."""
    found, model = [], Path(config.model)
    if model.exists() and not (model / "config.json").is_file():
        found.append(f"model {model} has no config.json; give a folder of a model in the layout of transformers")
    for key, value in (("data.train", config.data.train), ("data.eval", config.data.eval)):
        if value and Path(value).exists():
            try:
                containers.check_kind(value)
            except DataError as exc:
                found.append(f"{key}: {exc}")
    return found


def run(config: TrainConfig, resume: bool | Literal["auto"] = False) -> Path:
    """Train and print the outcome; returns the run folder. See `rl.loop.Loop.run` for what is raised.

    Args:
        resume: go on from the last checkpoint, which there must be; `auto` starts where there is none.
    """
    out = Path(config.out)
    if resume is True and not out.is_dir():
        raise CheckpointError(f"{out} does not exist, so there is nothing to resume; start without --resume")
    with claimed(out):
        _drive(config, out, _goes_on(out) if resume == "auto" else resume)
    return out


def _goes_on(out: Path) -> bool:
    """Whether there is a checkpoint to go on from; if not, what an earlier attempt has left is set aside."""
    found = complete_checkpoints(out)
    if found:
        print(f"{out}: going on from {found[-1].name}", flush=True)
        return True
    aside = set_aside(out)
    if aside is not None:
        logger.warning("%s holds a run without a checkpoint: its record is in %s now, and it starts again", out, aside)
    return False


def _drive(config: TrainConfig, out: Path, resume: bool) -> None:
    there = complete_checkpoints(out)
    if not resume and (holds_rows(out) or there):
        remedy = "continue it with --resume" if there else "it has no checkpoint yet: remove it, or use --auto-resume"
        raise ConfigError(f"{out} holds a run already; {remedy}, or set another `out`")
    found = latest_checkpoint(out) if resume else None
    if found is not None and (out / CONFIG).is_file():
        compare_settings(read_yaml(out / CONFIG), config)
    if found is not None:
        check_steps(config.out, config.steps, found.state["rows"]["step"])
    load_group_function(config.algo.advantages)  # user code that can't be imported should not wait for the first step
    carried = carry(config.rewards)
    check_mixture(config.rewards, carried.mixture, config.data.train)
    connect(config.ray_address, config.rollout, config.learner, config.rewards)
    run_interruptible(_run(config, carried, found))
    print_final(out)


def _open_record(config: TrainConfig, carried: Carried, found: Checkpoint | None) -> Tracker:
    """Open the files of a run; those of one that is resumed go back to where its checkpoint left them, and newer
    checkpoints, which are torn, are renamed."""
    out, mark = Path(config.out), found.state["rows"] if found else None
    if found is not None:
        check_rows(out, found.state["rows"])
        set_aside_newer(found.folder)
    save_config(config, out / CONFIG)
    if carried.mixture is not None:
        (out / MIXTURE).write_text(dump_yaml(carried.mixture.model_dump(mode="json", exclude_defaults=True)))
    return Tracker.from_config(out, config.tracker, mark)


async def _run(config: TrainConfig, carried: Carried, found: Checkpoint | None) -> None:
    """Raises the remote cause of a failure; where an actor is lost that nothing replaces, with what to do about it."""
    try:
        async with watching():
            with remote_causes():
                await _train(config, carried, found)
    except ActorLostError as exc:
        raise ActorLostError(f"{exc}; {how_to_go_on(Path(config.out))}") from exc


async def _train(config: TrainConfig, carried: Carried, found: Checkpoint | None) -> None:
    """Bring the actors up, take up the checkpoint if there is one, run the loop, and close what was opened."""
    begun = time.time()
    datasets = [path for path in (config.data.train, config.data.eval) if path]
    pool = RolloutPool(config.rollout, config.model, config.data.prompts, datasets, config.data.on_bad_row, config.sync)
    learner = LearnerGroup(config)
    rewards: RewardClient | None = None
    # What a resumed run has on record stays as it is until every part has taken up the checkpoint.
    tracker = None if found else _open_record(config, carried, found)
    try:
        await bring_up({"rollout workers": pool.ready(), "learner": learner.start()}, config.stall_timeout_s)
        async with learner.watched():
            names = {path: await pool.catalogue(path) for path in datasets}
            ids = names[config.data.train].ids
            if carried.mixture is not None:
                check_tasks(carried.mixture, await pool.tasks(config.data.train, carried.mixture.task))
            answer_types = sorted({name for dataset in names.values() for name in dataset.answer_types})
            rewards = RewardClient(config.rewards, answer_types, carried)
            await bring_up({"reward workers": rewards.ready()}, config.stall_timeout_s)
            prompts = prompt_source(config, ids)
            version, found = await _restore(found, pool, learner, rewards, prompts)
            tracker = tracker or _open_record(config, carried, found)
            ledger = Ledger(tracker.fate)
            if found is not None:
                ledger.load_state_dict(found.state["ledger"])
            with RunTable(config.steps) as table:
                io = RunIO(config, tracker, table, found.state["started"] if found else begun)
                io.timeline("sync", "start", begun, time.time())
                if config.data.eval:
                    io.eval_ids = names[config.data.eval].ids
                with _answering(Path(config.out), {"rollout": pool, "reward": rewards}):
                    probe = await _make_probe(config, pool, learner, ids)
                    await compare_probe(pool, probe, version, config.probe.threshold)
                    if found is None:
                        await io.evaluate(pool, rewards, 0)
                    requeued = found.state["requeued"] if found else ()
                    finished = await finished_groups(learner, found, config.algo.group_size) if found else []
                    done = {group.meta.uid for group in finished}
                    again = tuple(admission for admission in ledger.in_flight if admission.uid not in done)
                    loop = Loop(config, pool, rewards, learner, prompts, ledger, io, version, again, requeued, finished)
                    await _run_loop(loop)
    finally:
        try:
            if tracker is not None:
                tracker.close()  # it may find the disk full
        finally:
            parts = [part for part in (pool, learner, rewards) if part is not None]
            await asyncio.gather(*(part.close() for part in parts))


async def _run_loop(loop: Loop) -> None:
    """Run the loop, write the last checkpoint, then evaluate if it came to the last step.

    Raises:
        StoppedError: a signal ended the loop or the evaluation before.
    """
    config, ledger = loop.config, loop.ledger
    try:
        with _stop_on_signal(loop.stop, config.checkpoint.stop_within_s):
            if loop.version < config.steps:  # else only the evaluation was left when the run ended
                await loop.run()
            if loop.mid_step:
                raise StoppedError(
                    f"stopped in step {loop.version + 1} of {config.steps}, which did not end within "
                    f"{config.checkpoint.stop_within_s:g} s (checkpoint.stop_within_s), so no further checkpoint was "
                    f"written; {how_to_go_on(Path(config.out))}"
                )
            parts = (loop.learner, loop.rewards, loop.prompts, ledger, loop.requeued, loop.buffer.finished)
            await (await loop.io.checkpoint(loop.version, *parts))
            if loop.version < config.steps:
                raise StoppedError(f"stopped after step {loop.version} of {config.steps}; go on with --resume")
            if config.data.eval is not None:
                await _evaluate_at_end(loop)
    finally:
        ledger.finish()


async def _evaluate_at_end(loop: Loop) -> None:
    """Evaluate the last version; a request to stop breaks it off at once, as its checkpoint is written.

    Raises:
        StoppedError: that came.
    """
    steps = loop.config.steps

    async def evaluate() -> None:
        # What is in flight would compete with the evaluation; it is on record, and a resume samples it.
        await loop.pool.each("abort", [admission.uid for admission in loop.ledger.in_flight])
        await loop.io.evaluate(loop.pool, loop.rewards, steps)

    try:
        await unless(loop.stopping.asked, evaluate())
    except CutShortError:
        raise StoppedError(
            f"stopped after step {steps} of {steps}, before it was evaluated; --resume makes that evaluation"
        ) from None


@contextmanager
def _answering(out: Path, pools: dict[str, Pool]) -> Iterator[None]:
    """Requests to list, add and drain workers are answered during the block."""
    control = asyncio.create_task(serve(out, lambda request: handle(request, pools)))
    try:
        yield
    finally:
        control.cancel()


@contextmanager
def _stop_on_signal(stop: Callable[[], None], within_s: float) -> Iterator[None]:
    """SIGTERM, as preemption sends it, and the first Ctrl-C call `stop`; the second Ctrl-C interrupts the work, as any
    does outside these steps, and a second SIGTERM ends the process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop, signals = asyncio.get_running_loop(), (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.getsignal(number) for number in signals}

    def once(number: signal.Signals) -> None:
        for each in signals:
            loop.remove_signal_handler(each)
        signal.signal(signal.SIGINT, before[signal.SIGINT])
        logger.warning(
            "%s: the step under way is finished (in %g s at most) and a checkpoint written; once more to end now",
            number.name,
            within_s,
        )
        stop()

    for number in signals:
        loop.add_signal_handler(number, once, number)
    try:
        yield
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)


async def _restore(
    found: Checkpoint | None,
    pool: RolloutPool,
    learner: LearnerGroup,
    rewards: RewardClient,
    prompts: PromptSource,
) -> tuple[int, Checkpoint | None]:
    """Load a checkpoint, or if it is torn the one before it, into every part that writes no files.

    Returns the version to go on from, and the checkpoint that was loaded.
    """
    if found is None:
        return 0, None
    version = None
    while version is None:
        try:
            with waiting("restore", found.folder.name):
                version = await learner.load(str(found.folder.absolute()))
        except Exception as exc:
            cause = describe_failure(exc)
            if not isinstance(cause, TornCheckpointError):
                raise
            found = checkpoint_before(found, cause, STATE_KEYS)
    state = found.state
    with waiting("push", f"version {version}"):
        await pool.push(await learner.publish())
    prompts.load_state_dict(state["prompts"])
    with waiting("restore", "states of the reward workers"):
        await rewards.load_state_dict(state["rewards"])
    return version, found


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
    with waiting("probe", "its sequences"):
        logprobs = await learner.set_probe(await pool.make_probe(tasks))
        pool.keep_probe(learner.probe_groups())
        return logprobs
