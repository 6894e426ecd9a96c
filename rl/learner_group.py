"""The learner's ranks behind one handle."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import ray

from rl.batch.packing import CostModel
from rl.batch.plan import UpdateShare
from rl.config.train import TrainConfig
from rl.errors import ActorLostError, EngineDeadError, GroupsLostError
from rl.failures import lost_rank, of_ranks
from rl.learner.actor import REISSUE, LearnerRank
from rl.liveness import ping_on
from rl.mail import Part
from rl.nodes import close_actors, placement
from rl.records import LostGroups

_WRITING = "writing"
"""A thread of its own in every learner rank, to wait for files while the rank trains."""
_PINGS = "pings"
"""Another, to answer pings."""


class LearnerGroup:
    """All ranks of the learner; every call goes to all of them, results come from rank 0.

    A call raises ActorLostError when a rank dies; and after `stall_timeout_s` seconds, but for `start`, `train` and
    `written`, whose time others watch. `watched` notices a rank that hangs, whatever it was asked for.
    """

    def __init__(self, config: TrainConfig) -> None:
        learner = config.learner
        remote: Any = ray.remote  # its stubs know no concurrency groups
        actor = remote(
            num_cpus=learner.threads,
            num_gpus=learner.gpus_per_rank,
            concurrency_groups={_WRITING: 1, _PINGS: 1, REISSUE: 1},
            **placement(learner),
            runtime_env={"env_vars": {"OMP_NUM_THREADS": str(learner.threads), "HF_HUB_OFFLINE": "1"}},
        )(LearnerRank)
        self.ranks: list[Any] = [actor.remote(rank, config) for rank in range(learner.ranks)]
        self._limit_s, self._faults = config.stall_timeout_s, learner.faults
        self.cost = CostModel()
        """What a sequence costs the model; known after `start`."""

    async def start(self) -> None:
        """Waits for a place in the cluster, too."""
        ((address, port),) = await of_ranks([self.ranks[0].address.remote()])
        await of_ranks([rank.start.remote(address, port) for rank in self.ranks])
        (self.cost,) = await self._answers([self.ranks[0].cost_model.remote()])

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Pings the ranks beside the block, which is ended when one does not answer.

        Raises:
            ActorLostError: that, or a rank died; it is named.
            Exception: what the block raised.
        """
        body, lost = asyncio.current_task(), list[ActorLostError]()
        assert body is not None

        async def watch(rank: int) -> None:
            pinged = SimpleNamespace(ping=self.ranks[rank].ping.options(concurrency_group=_PINGS))
            try:
                await ping_on(f"learner rank {rank}", pinged, self._faults)
            except EngineDeadError as exc:
                cause = ActorLostError(f"{exc} (learner.faults.hang_s): it hangs")
            except Exception as exc:
                cause = lost_rank(rank, exc)
            if not lost:
                body.cancel()
            lost.append(cause)

        watches = [asyncio.create_task(watch(rank)) for rank in range(len(self.ranks))]
        try:
            yield
        except asyncio.CancelledError:
            if not lost:
                raise
            body.uncancel()
            raise lost[0] from None
        finally:
            for task in watches:
                task.cancel()

    async def publish(self) -> Any:
        """Reference to a `Ticket` for the current weights."""
        refs = [rank.publish.remote() for rank in self.ranks]
        await self._answers(refs)
        return refs[0]

    async def set_probe(self, groups: Any) -> Any:
        """Give every rank the probe's groups, by reference; returns a reference to their logprobs."""
        refs = [rank.set_probe.remote(groups) for rank in self.ranks]
        await self._answers(refs)
        return refs[0]

    def probe_groups(self) -> Any:
        """Reference to the probe's groups as rank 0 holds them: they last as long as the learner."""
        return self.ranks[0].probe_groups.remote()

    async def train(
        self, shares: Sequence[Sequence[Any]], record: str | None = None
    ) -> tuple[dict[str, float], Any, Any]:
        """(metrics, reference to a `Ticket` for the new weights, reference to the probe's logprobs).

        Args:
            record: folder to write what is needed to replay the step into.
        Raises:
            GroupsLostError: tokens of some groups are gone, and nothing was done.
        """
        refs = [
            rank.train.options(num_returns=3).remote(list(updates), record)
            for rank, updates in zip(self.ranks, shares, strict=True)
        ]
        metrics = await of_ranks([ref[0] for ref in refs])
        lost = frozenset(uid for part in metrics if isinstance(part, LostGroups) for uid in part.uids)
        if lost:
            raise GroupsLostError(f"the tokens of {len(lost)} groups are gone with the node that held them", lost)
        return metrics[0], refs[0][1], refs[0][2]

    async def digest(self) -> str:
        """Checksum of the weights as they are published."""
        return str((await self._all("digest"))[0])

    async def replay(self, folder: str) -> tuple[dict[str, float], str]:
        """Metrics of a recorded step that is done again, and the digest of the weights after it."""
        return (await self._all("replay", folder))[0], await self.digest()

    async def save(self, folder: str, background: bool, finished: UpdateShare) -> None:
        """Write a checkpoint, with finished groups; with `background` the files are complete when `written` returns."""
        given = [finished] + [None] * (len(self.ranks) - 1)
        saves = [rank.save.remote(folder, background, part) for rank, part in zip(self.ranks, given, strict=True)]
        await self._answers(saves)

    async def finished(self, folder: str) -> dict[int, Part]:
        """The finished groups that a checkpoint holds, by uid. Raises DataError if they can't be read."""
        uids, column = self.ranks[0].finished.options(num_returns=2).remote(folder)
        return {uid: Part(column, row) for row, uid in enumerate((await self._answers([uids]))[0])}

    async def written(self) -> None:
        """Wait for the files of the last checkpoint, beside whatever else the learner does."""
        # As long as it takes: ranks need nothing of each other for it, so pings tell of all that can go wrong.
        await of_ranks([rank.written.options(concurrency_group=_WRITING).remote() for rank in self.ranks])

    async def load(self, folder: str) -> int:
        return (await self._all("load", folder))[0]

    async def close(self) -> None:
        await close_actors(self.ranks)

    async def _all(self, method: str, *args: Any) -> list[Any]:
        return await self._answers([getattr(rank, method).remote(*args) for rank in self.ranks])

    async def _answers(self, calls: Sequence[Awaitable[Any]]) -> list[Any]:
        return await of_ranks(calls, self._limit_s)
