"""`rl curate profile`: N attempts of each policy at every candidate, scored and stored as they come.

    store -> what is missing -> [prompts in flight] -> rollout worker -> reward worker -> store

An attempt is named by (id, policy, number), and its seed follows from the config's seed, the id and the number. So a
run that was killed, or one with more attempts or more candidates, makes exactly those that are not there.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rl.cluster import RewardClient, RolloutPool, connect, scoring_actors
from rl.config.base import save_config
from rl.config.curate import PolicyConfig, ProfileConfig
from rl.curate import manifest
from rl.curate.attempts import ANSWER_CHARS, FOLDER, Attempt, AttemptWriter, Made, made_so_far
from rl.curate.select import is_settled
from rl.data.catalogue import read_catalogue
from rl.data.containers import answer_types
from rl.data.stream import SampleWriter, iter_chosen, stream_schema
from rl.data.validate import MARKER, to_sample
from rl.errors import ConfigError
from rl.eval.runner import Attempts, attempt, attempt_seed, prompts_in_flight
from rl.metrics.console import Meter, progress
from rl.records import RIGHT
from rl.reward_setup import problems
from rl.rollout.worker import PromptTask

BLIND = "text_only.parquet"
TERMS = "terms.json"
"""What an attempt depends on besides its id and number, by policy: attempts under other terms don't mix."""
STATUS_CHARS = 200


def check(config: ProfileConfig) -> list[str]:
    """Problems that would stop `run`, for --dry-run."""
    wanted = {f"policies.{name}.model": policy.model for name, policy in config.policies.items()}
    wanted["candidates"] = config.candidates
    found = [f"{key} {value} does not exist" for key, value in wanted.items() if not Path(value).exists()]
    return found + problems(config.rewards, answer_types((config.candidates,)))


def run(config: ProfileConfig) -> Path:
    """Make and store the attempts that are missing; returns the folder of the store.

    Raises:
        ConfigError: the store holds attempts of a policy of the same name that were made under other terms.
        DataError: candidates that can't be read, or another process writes to the store.
    """
    out = Path(config.out)
    started = manifest.begin(out, "profile")
    save_config(config, out / "profile.yaml")
    with AttemptWriter(out / FOLDER) as writer:
        _agree_on_terms(out / TERMS, config)
        dataset = _without_images(config, out / BLIND) if config.text_only else config.candidates
        made = made_so_far(out / FOLDER)
        counts: dict[str, int] = {}
        for name, policy in config.policies.items():
            done = {sample_id: state for (owner, sample_id), state in made.items() if owner == name}
            rollout = policy.rollout or config.rollout
            connect(config.ray_address, rollout)
            counts[name] = asyncio.run(_profile(config, name, policy, dataset, done, writer))
    inputs = {"candidates": config.candidates}
    inputs |= {f"policies.{name}": policy.model for name, policy in config.policies.items()}
    manifest.write(out, "profile", config, started, inputs=inputs, outputs=(FOLDER,), counts={"made_now": counts})
    return out


@dataclass(frozen=True, slots=True)
class _Work:
    """One candidate with the attempts that it lacks."""

    index: int
    sample_id: str
    made: Made


async def _profile(
    config: ProfileConfig,
    name: str,
    policy: PolicyConfig,
    dataset: str,
    done: dict[str, Made],
    writer: AttemptWriter,
) -> int:
    """Attempts of one policy; returns how many were made now."""
    rollout = policy.rollout or config.rollout
    catalogue = read_catalogue(dataset, on_bad=config.on_bad_row)
    if all(not _rounds(config, done.get(sample_id, Made())) for sample_id in catalogue.ids):
        return 0
    actors = scoring_actors(rollout, config.rewards, policy.model, config.prompts, dataset, config.on_bad_row)
    async with actors as (pool, rewards, ids):
        sources = (await pool.catalogue(dataset))[1]
        work = [_Work(i, sample_id, done.get(sample_id, Made())) for i, sample_id in enumerate(ids)]
        pending = iter([item for item in work if _rounds(config, item.made)])
        left = sum(_left(config, item.made) for item in work)
        makers = prompts_in_flight(rollout, config.attempts)
        with progress(f"attempts of {name}", left) as meter:
            maker = _Maker(config, name, dataset, pool, rewards, sources, writer, meter, rollout.sampling)
            return sum(await asyncio.gather(*(maker.drain(pending) for _ in range(makers))))


@dataclass(slots=True)
class _Maker:
    """What one attempt after the other is made with."""

    config: ProfileConfig
    policy: str
    dataset: str
    pool: RolloutPool
    rewards: RewardClient
    sources: dict[str, str]
    writer: AttemptWriter
    meter: Meter
    sampling: Any

    async def drain(self, pending: Iterator[_Work]) -> int:
        """Work off candidates until none is left; returns the attempts made."""
        count = 0
        for item in pending:
            for first, number in _rounds(self.config, item.made):
                if _settled(self.config, item.made):
                    self.meter.advance(self.config.attempts - item.made.mask.bit_count())
                    break
                for made in await self._make(item, first, number):
                    item.made.add(made.attempt, made.reward)
                count += number
                self.meter.advance(number)
        return count

    async def _make(self, item: _Work, first: int, number: int) -> list[Attempt]:
        seed = attempt_seed(self.config.seed, item.sample_id) + first
        # Rounds of one candidate must not share a request id, nor those of a policy with another's.
        tag = f"{self.policy}-{first}"
        task = PromptTask(item.index, self.dataset, item.sample_id, number, seed, self.sampling, tag=tag)
        group = await attempt(self.pool, self.rewards, self.sources[item.sample_id], task)
        answers: Sequence[str | None] = (None,) * number
        if group.scoring is not None:
            answers = await self.rewards.answers(group.scoring, ANSWER_CHARS)
        rows = [_row(self.policy, group, answers[i], i, first, seed) for i in range(number)]
        self.writer.append(rows)
        return rows


def _row(policy: str, group: Attempts, answer: str | None, i: int, first: int, seed: int) -> Attempt:
    meta = group.meta
    return Attempt(
        id=group.sample_id,
        policy=policy,
        attempt=first + i,
        seed=seed + i,
        reward=group.rewards[i],
        status=group.statuses[i][:STATUS_CHARS],
        length=meta.lengths[i] if meta else None,
        finish_reason=meta.finish_reasons[i] if meta else None,
        answer=answer,
    )


def _rounds(config: ProfileConfig, made: Made) -> list[tuple[int, int]]:
    """(first, count) of the requests that would complete a candidate, in order."""
    if _settled(config, made):
        return []
    early = made.missing(config.settle_after) if config.settle_after else []
    start = config.settle_after or 0
    late = [(first, count) for first, count in made.missing(config.attempts) if first + count > start]
    return early + [(max(first, start), first + count - max(first, start)) for first, count in late]


def _left(config: ProfileConfig, made: Made) -> int:
    return sum(count for _, count in _rounds(config, made))


def _settled(config: ProfileConfig, made: Made) -> bool:
    """Whether the attempts so far decide that the rule drops the candidate."""
    if config.settle_after is None or config.select is None or made.missing(config.settle_after):
        return False
    left = sum(count for _, count in made.missing(config.attempts))
    return left > 0 and is_settled(made.rewards, left, RIGHT, config.select)


def _agree_on_terms(path: Path, config: ProfileConfig) -> None:
    held: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for name, policy in config.policies.items():
        sampling = (policy.rollout or config.rollout).sampling
        now = {
            "model": manifest.describe(Path(policy.model))["sha256"],
            "prompts": config.prompts.model_dump(mode="json"),
            "sampling": sampling.model_dump(mode="json"),
            "seed": config.seed,
            "text_only": config.text_only,
        }
        changed = [key for key, value in now.items() if name in held and held[name].get(key) != value]
        if changed:
            raise ConfigError(
                f"{path.parent} holds attempts of policy {name!r} that were made with other {', '.join(changed)}; "
                "attempts of two kinds under one name would be taken for one: name the policy anew, or set another out"
            )
        held[name] = now
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(held, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)


def _without_images(config: ProfileConfig, target: Path) -> str:
    """The candidates as text: no images, no markers."""
    catalogue = read_catalogue(config.candidates, on_bad=config.on_bad_row)
    everyone = catalogue.chosen(np.ones(len(catalogue), dtype=bool))
    with SampleWriter(target, stream_schema(config.candidates)) as writer:
        for raw in iter_chosen(config.candidates, everyone):
            values = {
                **raw.values,
                "images": None,
                "problem": str(raw.values.get("problem")).replace(MARKER, "").strip(),
            }
            sample = to_sample(replace(raw, values=values))
            writer.add(sample)
    return str(target)
