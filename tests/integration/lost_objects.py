"""Run by `test_nodes.py`: parts on a node that dies, as a grader and as a learner rank fetches them."""

from __future__ import annotations

import asyncio
import json
import sys

import numpy as np
import ray

from rl.batch.plan import GroupShare, UpdateShare
from rl.failures import object_lost
from rl.learner.actor import _fetch
from rl.mail import Part


class Holder:
    def make(self) -> tuple[int, list[np.ndarray]]:
        return 1, [np.zeros(1 << 20, np.uint8)]

    def close(self) -> None: ...


class Reader:
    async def size(self, part: Part) -> int:
        return (await part.fetched()).size

    async def fetch(self, parts: list[UpdateShare]) -> tuple[list[int], list[int]]:
        groups, lost = await asyncio.to_thread(_fetch, parts)  # as in the learner, whose calls run in threads
        return sorted(groups), list(lost)


async def main() -> None:
    ray.init(address=sys.argv[1], log_to_driver=False)
    make = {
        name: ray.remote(kind).options(num_cpus=1, label_selector={"pool": name})  # type: ignore[call-overload]
        for name, kind in (("holder", Holder), ("reader", Reader))
    }
    holder, reader = make["holder"].remote(), make["reader"].remote()
    small, large = holder.make.options(num_returns=2).remote()
    await small
    safe = ray.put([np.zeros(1 << 20, np.uint8)])
    assert await reader.size.remote(Part(safe, 0)) == 1 << 20
    print("held", flush=True)
    sys.stdin.readline()
    try:
        await reader.size.remote(Part(large, 0))
        argument = False
    except Exception as exc:
        argument = object_lost(exc)
    parts = [UpdateShare((GroupShare(Part(large, 0), (), 0), GroupShare(Part(safe, 0), (), 1)), 1)]
    fetched, lost = await reader.fetch.remote(parts)
    print(json.dumps({"argument": argument, "fetched": fetched, "lost": lost}))


asyncio.run(main())
