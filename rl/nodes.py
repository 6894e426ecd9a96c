"""Ray: joining or starting a cluster, room for a run's actors, waiting until they are up, ending them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray

from rl.config.learner import LearnerConfig
from rl.config.placement import PlacedConfig
from rl.config.rollout import RewardConfig, RolloutConfig
from rl.errors import ClusterError, ConfigError, StarvationError, first_lines
from rl.ray_start import join_ray, start_ray

logger = logging.getLogger(__name__)

CLOSE_S = 20.0
"""After this an actor that does not close, perhaps stuck in a collective, is killed as it is."""
_NOTICE_S = 60.0
"""How often a start that takes long says what it waits for."""
_START_S = 1800.0
_SETTINGS = {
    "rollout": "rollout.workers, rollout.cpus_per_worker or rollout.gpus_per_worker",
    "learner": "learner.ranks, learner.threads or learner.gpus_per_rank",
    "rewards": "rewards.workers",
}
"""What sets a pool's needs, by its section of the config."""


@dataclass(frozen=True, slots=True)
class Need:
    """What actors of one kind want of the cluster, all together."""

    section: str
    """Of the config."""
    amounts: Mapping[str, float]
    """CPU, GPU and custom resources."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Of the nodes that may hold them."""


def connect(
    address: str | None,
    rollout: RolloutConfig | None = None,
    learner: LearnerConfig | None = None,
    rewards: RewardConfig | None = None,
) -> None:
    """Join `address`, the cluster of a surrounding Ray job, or start a local one.

    Raises:
        ClusterError: Ray did not answer or start in time.
        ConfigError: this machine is too small for the actors. A cluster that was joined may grow: it gets a warning.
    """
    needs = needs_of(rollout, learner, rewards)
    if ray.is_initialized():
        return check_capacity(needs, may_grow=True)
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # A call with three results fails once and is awaited once; Ray would log the other two as errors that nobody saw,
    # and every request that the end of a run cuts short.
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
    target = address or os.environ.get("RAY_ADDRESS")
    options: dict[str, Any] = {"logging_level": logging.WARNING, "log_to_driver": True}
    try:
        if target:
            join_ray(target, **options)
        else:
            start_ray(include_dashboard=False, **options)
    except Exception as exc:  # Ray raises plain ones, too, where a process of its own is late
        said = first_lines(exc, lines=2)
        if target:
            remedy = f"see whether `ray status --address {target}` answers, or set ray_address (or RAY_ADDRESS) anew"
            raise ClusterError(f"the Ray cluster at {target} can't be joined: {said}; {remedy}") from exc
        raise ClusterError(
            f"Ray can't be started on this machine: {said}; try again when it is less busy (`ray stop` ends what is "
            "left of earlier runs), or join a cluster with ray_address; its logs: /tmp/ray/session_latest/logs"
        ) from exc
    check_capacity(needs, may_grow=bool(target))


def needs_of(
    rollout: RolloutConfig | None = None, learner: LearnerConfig | None = None, rewards: RewardConfig | None = None
) -> list[Need]:
    """What the actors of a run want, pool by pool."""
    found = []
    if rollout is not None:
        found.append(_need("rollout", rollout, rollout.workers, rollout.cpus_per_worker, rollout.gpus_per_worker))
    if learner is not None:
        found.append(_need("learner", learner, learner.ranks, learner.threads, learner.gpus_per_rank))
    if rewards is not None:
        found.append(_need("rewards", rewards, rewards.workers, 0, 0))
    return found


def _need(section: str, placed: PlacedConfig, count: int, cpus: float, gpus: float) -> Need:
    each = {"CPU": cpus, "GPU": gpus, **placed.resources}
    return Need(section, {name: count * amount for name, amount in each.items()}, placed.labels)


def check_capacity(needs: Sequence[Need], may_grow: bool) -> None:
    """Refuse to start actors for which the cluster is too small: Ray would wait for ever without a word."""
    has, wanted = ray.cluster_resources(), Counter[str]()
    for need in needs:
        wanted.update(need.amounts)
    short = [
        f"{amount:g} {kind}s where the cluster has {has.get(kind, 0):g}"
        for kind, amount in wanted.items()
        if amount > has.get(kind, 0)
    ]
    for need in needs:
        short += _short_of_nodes(need)
    if not short:
        return
    settings = " and ".join(dict.fromkeys(_SETTINGS[need.section] for need in needs))
    message = f"the actors need {' and '.join(short)}; lower {settings}, or join a larger cluster (ray_address)"
    if not may_grow:
        raise ConfigError(message)
    logger.warning("%s. Waiting for nodes to join", message)


def _short_of_nodes(need: Need) -> list[str]:
    """What the nodes that a pool's labels name lack."""
    if not need.labels:
        return []
    where = " and ".join(f"{key}={value}" for key, value in need.labels.items())
    fitting = [node for node in ray.nodes() if node["Alive"] and need.labels.items() <= node["Labels"].items()]
    if not fitting:
        return [f"nodes labelled {where} ({need.section}.labels), of which there is none"]
    has = Counter[str]()
    for node in fitting:
        has.update(node["Resources"])
    return [
        f"{amount:g} {kind}s on nodes labelled {where}, which have {has[kind]:g}"
        for kind, amount in need.amounts.items()
        if amount > has[kind]
    ]


def lacks_now(placed: PlacedConfig, cpus: float, gpus: float) -> bool:
    """Whether a further actor has to wait for room in the cluster, as far as is known at this moment."""
    free = ray.available_resources()
    return any(amount > free.get(kind, 0) for kind, amount in {"CPU": cpus, "GPU": gpus, **placed.resources}.items())


def placement(placed: PlacedConfig) -> dict[str, Any]:
    """Options of an actor that say which nodes may hold it."""
    options: dict[str, Any] = {}
    if placed.resources:
        options["resources"] = dict(placed.resources)
    if placed.labels:
        options["label_selector"] = dict(placed.labels)
    return options


async def bring_up(waits: Mapping[str, Awaitable[Any]], limit_s: float = _START_S) -> None:
    """Wait for actors to be ready; says once a minute which are not.

    Raises:
        StarvationError: not all were ready within `limit_s` seconds.
        Exception: whatever the first actor that failed raised.
    """
    names = {asyncio.ensure_future(wait): name for name, wait in waits.items()}
    pending, started = set(names), time.monotonic()
    try:
        while pending:
            done, pending = await asyncio.wait(pending, timeout=_NOTICE_S, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
            if not pending:
                return
            free = ray.available_resources()
            missing = (
                f"{' and '.join(sorted(names[task] for task in pending))} not ready after "
                f"{time.monotonic() - started:.0f} s; free in the cluster: {free.get('CPU', 0):g} CPUs, "
                f"{free.get('GPU', 0):g} GPUs"
            )
            if time.monotonic() - started > limit_s:
                raise StarvationError(f"{missing}. Given up; see `ray status` and the actors' logs")
            logger.warning("%s", missing)
    finally:
        for task in pending:
            task.cancel()


async def close_actor(actor: Any, kill: Callable[[Any], None]) -> None:
    """As `close_actors` does, and whatever becomes of it."""
    with contextlib.suppress(Exception):
        async with asyncio.timeout(CLOSE_S):
            await actor.close.remote()
    with contextlib.suppress(Exception):
        kill(actor)


async def close_actors(actors: Sequence[Any]) -> None:
    """Let actors close for `CLOSE_S` seconds at most, then kill them."""
    closing = asyncio.gather(*(actor.close.remote() for actor in actors), return_exceptions=True)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(closing, CLOSE_S)
    for actor in actors:
        ray.kill(actor)
