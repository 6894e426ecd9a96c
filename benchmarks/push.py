"""How long do rollouts stand still for new weights, and how close does a push come to a plain copy of them?

A push, as training makes it: `WeightSync.publish` in this process (pack and sum, send), then on every engine at once
fetch (and verify) while it generates, and apply while it is paused. Every engine is a real vLLM in an actor of its own,
with a long request running or at rest: an engine that decodes reads all weights for each token, from the same memory.
Beside each push the same bytes are copied in memory, once and by one process.

    publish -> fetch -> [pause: apply] -> generation goes on
    |<- deliver --->|
    |<------- critical path -------->|

`share_of_memcpy` is the bandwidth of the whole push, bytes / (critical path), over that of the copy;
`delivery_share_of_memcpy` that of its transport, bytes / (publish + fetch), until the engine's process can load bytes
that are known to be right. `pause_s` is the engine's own, `gap_s` the longest time in which a running request got no
step around a push. Times of several engines are those of the slowest. With fewer processors than engines and learner
they share them.

    python benchmarks/push.py [--sizes tiny 135m] [--engines 1 2 4] [--transports shm gloo] [--load busy idle]

`nccl` needs a GPU per process and is measured where it is asked for by name. The last line printed is JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from rl.config.rollout import EngineConfig
from rl.config.sync import SyncConfig
from rl.metrics.environment import environment
from rl.rollout.engine import GenerateRequest
from rl.rollout.vllm_engine import VllmEngine, vllm_environment
from rl.sync.base import Ticket
from rl.sync.learner import WeightSync
from rl.sync.worker import WeightReceiver

SIZES: dict[str, dict[str, Any]] = {
    # hidden, intermediate, layers, heads, key-value heads, vocabulary
    "tiny": dict(zip("hilakv", (64, 192, 2, 2, 1, 384), strict=True)),
    "135m": dict(zip("hilakv", (576, 1536, 30, 9, 3, 49152), strict=True)),  # the shape of SmolLM2-135M
}
DTYPES = ("float32", "bfloat16")
LOADS = ("busy", "idle")
ROUNDS_OF_MEMCPY = 5
PARTS = ("pack_s", "send_s", "publish_s", "fetch_s", "delivery_s", "apply_s", "pause_s", "gap_s", "critical_s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--engines", nargs="+", type=int, default=[1, 2, 4])
    parser.add_argument("--transports", nargs="+", default=["object_store", "shm", "gloo", "disk"])
    parser.add_argument("--kv-cache", choices=["recompute", "keep"], default="recompute")
    parser.add_argument(
        "--load", nargs="+", choices=LOADS, default=list(LOADS), help="engines generate, or are at rest"
    )
    parser.add_argument("--pushes", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="of the learner's copies and of each engine")
    parser.add_argument("--cpu-memory-gib", type=float, default=16, help="leave out what would need more")
    args = parser.parse_args()
    import ray
    import torch

    torch.set_num_threads(args.threads)
    ray.init(address="local", num_cpus=64, include_dashboard=False, object_store_memory=3 << 30, log_to_driver=False)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for size in args.sizes:
            for dtype in args.dtypes:
                model = make_model(Path(folder) / f"{size}-{dtype}", size, dtype)
                for engines in args.engines:
                    if engines * (1.5 + 4 * gib_of(model)) > args.cpu_memory_gib:
                        print(f"{size} {dtype} on {engines} engines is left out: see --cpu-memory-gib", flush=True)
                        continue
                    rows += asyncio.run(measure(args, size, dtype, engines, model))
    ray.shutdown()
    print(json.dumps({"rows": rows, "settings": vars(args), "environment": environment()}))


def make_model(folder: Path, size: str, dtype: str) -> Path:
    """A Llama with random weights, and a tokenizer of as many words as it has tokens."""
    import torch
    from tokenizers import Tokenizer, models
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    shape = SIZES[size]
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=shape["v"],
        hidden_size=shape["h"],
        intermediate_size=shape["i"],
        num_hidden_layers=shape["l"],
        num_attention_heads=shape["a"],
        num_key_value_heads=shape["k"],
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=None,
    )
    LlamaForCausalLM(config).to(getattr(torch, dtype)).save_pretrained(folder)
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(shape["v"])}, unk_token="w0"))
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="w0").save_pretrained(folder)
    return folder


def gib_of(model: Path) -> float:
    return sum(file.stat().st_size for file in model.glob("*.safetensors")) / 2**30


class EngineActor:
    """What a rollout worker does with weights, and a request that never ends beside it."""

    def __init__(self, model: str, engine: EngineConfig, sync: SyncConfig) -> None:
        self.engine, self.receiver = VllmEngine(model, engine), WeightReceiver(sync)
        self._count, self._busy = 0, False

    async def ready(self, load: str) -> None:
        """Let the engine generate from here on, or come to rest."""
        if self._busy and load == "idle":
            self._running.cancel()
            await self.engine.abort(f"r{self._count}")
        elif load == "busy" and not self._busy:
            self._running = asyncio.create_task(self._generate())
        self._busy = load == "busy"

    async def update(self, ticket: Ticket) -> dict[str, float]:
        self.engine.drain_busy()
        start = time.time()
        async with self.receiver.fetched(ticket) as bundle:
            fetched = time.time()
            times = await self.engine.update_weights(bundle)
        end = time.time()
        assert self.receiver.transport == ticket.transport, "the transport failed, and another one was measured"
        # The step after the pause computes keys again: it is part of the gap, and no part of the next push.
        await self.engine.ping()
        await asyncio.sleep(0.3)
        return {
            "fetch_s": fetched - start,
            "apply_s": times.apply_s,
            "pause_s": times.pause_s,
            "gap_s": longest_gap(self.engine.drain_busy()),
            "end": end,
        }

    def close(self) -> None:
        self.receiver.close()
        self.engine.close()

    async def _generate(self) -> None:
        while True:
            self._count += 1
            await self.engine.generate(GenerateRequest(f"r{self._count}", (1, 2, 3, 4), (), 4, 0, 1.0, 200))


def longest_gap(busy: list[tuple[float, float]]) -> float:
    return max((start - end for (_, end), (start, _) in itertools.pairwise(busy)), default=0.0)


async def measure(args: argparse.Namespace, size: str, dtype: str, engines: int, model: Path) -> list[dict[str, Any]]:
    """All transports on the same engines; transports take turns, so that a drift of the machine meets all."""
    import ray
    from safetensors.torch import load_file

    # Copies, because what is loaded is a mapped file, and a learner's parameters are memory of its own.
    tensors = {name: tensor.clone() for name, tensor in load_file(model / "model.safetensors").items()}
    settings = EngineConfig(dtype=dtype, max_model_len=2048, max_num_seqs=8, kv_cache_mb=256, enforce_eager=True)
    configs = {t: SyncConfig(transport=t, kv_cache=args.kv_cache) for t in args.transports}
    actor = ray.remote(EngineActor).options(
        num_cpus=1, max_concurrency=64, runtime_env={"env_vars": vllm_environment(args.threads, 0)}
    )
    first = next(iter(configs.values()))
    actors = [actor.remote(str(model), settings, first) for _ in range(engines)]
    with tempfile.TemporaryDirectory() as folder:
        syncs = {t: WeightSync(config, Path(folder) / t, workers=engines) for t, config in configs.items()}
        results: dict[tuple[str, str], list[dict[str, float]]] = {}
        versions = itertools.count(1)
        for load in args.load:
            await asyncio.gather(*(one.ready.remote(load) for one in actors))
            for turn in range(-2, args.pushes):  # the first two touch the memory of both buffers, and connect
                for transport, sync in syncs.items():
                    copy = memcpy_seconds(tensors)
                    result = await push(sync, tensors, next(versions), actors) | {"memcpy_s": copy}
                    if turn >= 0:
                        results.setdefault((load, transport), []).append(result)
        await asyncio.gather(*(one.close.remote() for one in actors))
        for one in actors:
            ray.kill(one)
        for sync in syncs.values():
            sync.close()
    count = sum(tensor.nbytes for tensor in tensors.values())
    of = {"size": size, "dtype": dtype, "engines": engines, "bytes": count}
    return [summary(of | {"load": load, "transport": t}, runs) for (load, t), runs in results.items()]


async def push(sync: WeightSync, tensors: Any, version: int, actors: list[Any]) -> dict[str, float]:
    import ray

    start = time.time()
    ticket = sync.publish(tensors, version)
    published = time.time()
    reference = ray.put(ticket)
    answers = await asyncio.gather(*(one.update.remote(reference) for one in actors))
    slowest = {key: max(answer[key] for answer in answers) for key in answers[0]}
    times = {"publish_s": published - start, "critical_s": slowest.pop("end") - start}
    return sync.times | times | {"delivery_s": times["publish_s"] + slowest["fetch_s"]} | slowest


def memcpy_seconds(tensors: Any) -> float:
    """Median time of a copy of as many bytes between buffers whose pages have been touched."""
    import torch

    source = torch.ones(sum(tensor.nbytes for tensor in tensors.values()), dtype=torch.uint8)
    target = source.clone()
    seconds = []
    for _ in range(ROUNDS_OF_MEMCPY):
        start = time.perf_counter()
        target.copy_(source)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def summary(of: dict[str, Any], runs: list[dict[str, float]]) -> dict[str, Any]:
    """Medians; one line of the table."""
    middle = {key: statistics.median(run[key] for run in runs) for key in (*PARTS, "memcpy_s")}
    row = of | {key: round(value, 5) for key, value in middle.items()}
    row["gb_per_s"] = round(of["bytes"] / middle["critical_s"] / 1e9, 3)
    row["share_of_memcpy"] = round(middle["memcpy_s"] / middle["critical_s"], 3)
    row["delivery_share_of_memcpy"] = share = round(middle["memcpy_s"] / middle["delivery_s"], 3)
    shown = "  ".join(f"{key[:-2]} {1000 * middle[key]:.1f}" for key in ("memcpy_s", *PARTS))
    print(
        f"{of['size']} {of['dtype']} x{of['engines']} {of['load']} {of['transport']}: {row['share_of_memcpy']:.2f} of "
        f"memcpy, delivery {share:.2f}; ms: {shown}",
        flush=True,
    )
    return row


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main()
