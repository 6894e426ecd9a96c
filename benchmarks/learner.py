"""How many tokens does a full learner step train per CPU-second: against TRL, and against no RL at all?

Side by side in one run, round by round, each in a process of its own on one thread, over the same steps of ragged
groups and the same Qwen3 of 7 million parameters in float32:

- `ours`: `LearnerRank.train`, from groups in the object store to the packed new weights; the loss is DAPO;
- `trl`: `GRPOTrainer` of TRL with its DAPO loss and its default layout, fed by a `rollout_func`; what it spends on
  receiving, scoring and padding completions is left out. The first round tries several micro-batch sizes, the
  others its fastest alone;
- `raw`: forward and backward of ours' micro-batches with a cross entropy, and no RL, no FSDP, no optimizer around it.

TRL lives in a virtual environment that this script makes (`--trl-env`); it borrows torch and transformers from the one
that runs this, so both sides compute with the same builds, and adds pinned packages without dependencies.

    python benchmarks/learner.py [--rounds 3] [--out runs/learner-benchmark] [learner.packing=false ...]

Further arguments are settings of `rl train`. Tokens are those of prompts and completions, without padding. The first
step of every process is not counted. The last line printed is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from rl.metrics.environment import environment

TRL = ("trl==1.16.0", "accelerate==1.15.0")
TRL_SCRIPT = Path(__file__).with_name("learner_trl.py")
TRL_BATCHES = (2, 4, 8)
PROMPTS, GROUP = 8, 8
STEPS = 3
VOCABULARY = 8192
LEARNING_RATE = 1e-6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("runs/learner-benchmark"))
    parser.add_argument("--trl-env", type=Path, default=Path(".venv-trl"))
    parser.add_argument("--side", choices=["make", "ours", "raw"], help="run this side alone and no more")
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="of `rl train`, for ours and raw")
    args = parser.parse_args()
    if args.side:
        print(json.dumps({"make": make, "ours": ours, "raw": raw}[args.side](args.out, args.settings)))
        return
    python = make_trl_env(args.trl_env)
    mine = [sys.executable, __file__, "--out", str(args.out), *args.settings, "--side"]
    call([*mine, "make"])
    rounds, sizes = [], TRL_BATCHES
    for number in range(args.rounds):
        results = {side: call([*mine, side]) for side in ("ours", "raw")}
        peers = {size: call([python, str(TRL_SCRIPT), str(args.out), str(size)]) for size in sizes}
        sizes = (max(peers, key=lambda size: rate(peers[size])),)
        results |= {f"trl/{size}": result for size, result in peers.items()}
        rounds.append(results)
        rates = ", ".join(f"{side} {rate(result):.0f}" for side, result in results.items())
        print(f"round {number + 1}/{args.rounds}, tokens per CPU-second: {rates}", flush=True)
    print(json.dumps(summarise(rounds, args.settings)))


def make_trl_env(folder: Path) -> str:
    """The interpreter of an environment with TRL that sees this one's packages behind its own."""
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        ours = next(path for path in map(Path, sys.path) if path.name == "site-packages")
        theirs = next((folder / "lib").glob("python*/site-packages"))
        # Read through `site`, so that path files there count too; the torchvision one is needed.
        (theirs / "shared.pth").write_text(f"import site; site.addsitedir({str(ours)!r})\n")
        pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*pip, "--ignore-installed", *TRL], check=True)
        (folder / "ready").touch()
    return str(python)


def call(command: list[str]) -> dict[str, Any]:
    """The JSON that a side prints last."""
    settings = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TRL_EXPERIMENTAL_SILENCE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | settings)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with exit code {done.returncode}:\n{done.stderr[-3000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def make(folder: Path, settings: list[str]) -> dict[str, Any]:
    """Write the model, its tokenizer and the groups of every step, with the model's logprobs of the completions.

    Completions are lognormal in length: most are short and a few fill the limit, as in RL on reasoning tasks.
    """
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    from rl.models.tokenizer import train_tokenizer

    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        tie_word_embeddings=True,
        max_position_embeddings=2048,
    )
    model = Qwen3ForCausalLM(config).eval()
    tokenizer = train_tokenizer(["0 1 2 3 4 5 6 7 8 9"], 320)
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    generator = np.random.default_rng(0)
    steps = [[draw_group(generator, tokenizer.eos_token_id) for _ in range(PROMPTS)] for _ in range(STEPS)]
    with torch.no_grad():
        for group in (group for step in steps for group in step):
            group["logprobs"] = [logprobs(model, group["prompt"], ids) for ids in group["completions"]]
    (folder / "steps.json").write_text(json.dumps(steps))
    return {"tokens": [sum(map(tokens_of, step)) for step in steps]}


def draw_group(generator: np.random.Generator, eos: int) -> dict[str, Any]:
    lengths = np.clip(generator.lognormal(np.log(96), 0.9, GROUP).astype(int), 4, 768)
    words = [generator.integers(320, VOCABULARY, length - 1).tolist() + [eos] for length in lengths]
    prompt = generator.integers(320, VOCABULARY, generator.integers(24, 160)).tolist()
    return {"prompt": prompt, "completions": words, "rewards": generator.integers(0, 2, GROUP).astype(float).tolist()}


def logprobs(model: Any, prompt: list[int], completion: list[int]) -> list[float]:
    import torch

    ids = torch.tensor([prompt + completion])
    scores = torch.log_softmax(model(input_ids=ids).logits[0, len(prompt) - 1 : -1], -1)
    values: list[float] = scores.gather(1, torch.tensor(completion)[:, None])[:, 0].tolist()
    return values


def tokens_of(group: dict[str, Any]) -> int:
    return len(group["prompt"]) * len(group["completions"]) + sum(map(len, group["completions"]))


def train_config(folder: Path, settings: list[str]) -> Any:
    from rl.config.base import apply_overrides, parse_config
    from rl.config.train import TrainConfig

    raw = {
        "model": str(folder / "model"),
        "out": str(folder / "run"),
        "steps": STEPS,
        "data": {"train": "none"},
        "algo": {"prompts_per_step": PROMPTS, "group_size": GROUP, "loss": {"name": "dapo"}},
        "learner": {"optimizer": {"lr": LEARNING_RATE, "weight_decay": 0.0}},
    }
    return parse_config(TrainConfig, apply_overrides(raw, settings))


def to_group(uid: int, group: dict[str, Any]) -> Any:
    from rl.records import Group, Rollout, VersionSpan

    rollouts = tuple(
        Rollout(np.array(ids, np.int32), np.array(logp, np.float32), (VersionSpan(0, 0, len(ids)),), "stop", "")
        for ids, logp in zip(group["completions"], group["logprobs"], strict=True)
    )
    return Group(uid, str(uid), np.array(group["prompt"], np.int32), (), (), rollouts)


def ours(folder: Path, settings: list[str]) -> dict[str, Any]:
    import ray

    from rl.batch.plan import GroupShare, UpdateShare
    from rl.learner.actor import LearnerRank
    from rl.learner.ranks import free_port
    from rl.mail import Part

    steps = json.loads((folder / "steps.json").read_text())
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    rank = LearnerRank(0, train_config(folder, settings))
    rank.start("127.0.0.1", free_port())
    meter, padding, norms = Meter(), [], []
    for step in steps:
        column = ray.put([to_group(uid, group) for uid, group in enumerate(step)])
        groups = tuple(
            GroupShare(Part(column, uid), tuple(np.array(group["rewards"]) - np.mean(group["rewards"])), uid)
            for uid, group in enumerate(step)
        )
        meter.start()
        metrics, _, _ = rank.train([UpdateShare(groups, PROMPTS * GROUP)])
        meter.stop(sum(map(tokens_of, step)))
        padding.append(metrics["batch/padding_share"])
        norms.append(metrics["grad_norm"])
    rank.close()
    ray.shutdown()
    return meter.result() | {"padding_share": statistics.mean(padding[1:]), "grad_norm": norms[0]}


def raw(folder: Path, settings: list[str]) -> dict[str, Any]:
    """The model alone on the micro-batches that ours makes: their making is not counted."""
    import torch
    from torch.nn import functional

    from rl.batch.sequences import ImageTable
    from rl.learner.batches import MicroBatcher
    from rl.learner.ranks import close_ranks, free_port, init_ranks
    from rl.learner.samples import rollout_samples
    from rl.models.encoder import PromptEncoder
    from rl.models.policy import load_policy

    config = train_config(folder, settings)
    steps = json.loads((folder / "steps.json").read_text())
    device = init_ranks(0, 1, "127.0.0.1", free_port(), config.learner)
    policy, encoder = load_policy(config.model), PromptEncoder(config.model, config.data.prompts)
    batcher = MicroBatcher(config.learner, policy, encoder.pad_id, device)
    meter, images = Meter(), ImageTable()
    for step in steps:
        groups = [to_group(uid, group) for uid, group in enumerate(step)]
        samples = [s for group in groups for s in rollout_samples(group, [1.0] * GROUP, policy, encoder, images)]
        batches = batcher.of_own([sample.tokens for sample in samples], images)
        trained = sum(len(batch.targets) for batch in batches)
        meter.start()
        policy.zero_grad()
        for batch in batches:
            hidden = policy._hidden_states(batch).flatten(0, 1)[
                batch.rows
            ]  # transformers' model, nothing of ours after
            logits = functional.linear(hidden, policy.model.get_output_embeddings().weight)
            (functional.cross_entropy(logits, batch.targets, reduction="sum") / trained).backward()
        meter.stop(sum(map(tokens_of, step)))
    close_ranks()
    assert all(torch.isfinite(p.grad).all() for p in policy.parameters())
    return meter.result()


class Meter:
    """CPU seconds and tokens of steps, without the first, and the peak of memory above what stood before it."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.tokens: list[int] = []
        self.before = 0.0

    def start(self) -> None:
        self.before = self.before or psutil.Process().memory_info().rss / 2**30
        self.began = time.process_time()

    def stop(self, tokens: int) -> None:
        self.seconds.append(time.process_time() - self.began)
        self.tokens.append(tokens)

    def result(self) -> dict[str, Any]:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        return {"seconds": self.seconds[1:], "tokens": self.tokens[1:], "gib": peak - self.before}


def rate(result: dict[str, Any]) -> float:
    """Tokens per CPU-second."""
    return sum(result["tokens"]) / sum(result["seconds"])


def summarise(rounds: list[dict[str, Any]], settings: list[str]) -> dict[str, Any]:
    """Medians over rounds; ratios are medians of each round's own ratio."""
    sides = {}
    for side, first in rounds[0].items():
        runs = [results[side] for results in rounds if side in results]
        sides[side] = {
            "tokens_per_cpu_s": round(statistics.median(map(rate, runs)), 1),
            "peak_gib": round(statistics.median(run["gib"] for run in runs), 3),
            "padding_share": round(first.get("padding_share", rounds[0]["ours"]["padding_share"]), 4),
            "rounds": len(runs),
        }
    peers = [side for side in sides if side.startswith("trl/")]
    fastest = max(peers, key=lambda side: rate(rounds[0][side]))
    # From the same weights, tokens and advantages: different norms would mean that the sides do different work.
    norms = {side: rounds[0][side]["grad_norm"] for side in ("ours", *peers)}
    assert max(norms.values()) < 1.01 * min(norms.values()), norms
    return {
        "benchmark": "learner",
        "trl": TRL[0],
        "settings": settings,
        "sequences_per_step": PROMPTS * GROUP,
        "tokens_per_step": rounds[0]["ours"]["tokens"],
        "sides": sides,
        "trl_fastest": fastest,
        "of_trl": round(statistics.median(rate(r["ours"]) / rate(r[fastest]) for r in rounds), 2),
        "of_raw": round(statistics.median(rate(r["ours"]) / rate(r["raw"]) for r in rounds), 3),
        "first_grad_norm": norms,
        "rounds": [{side: round(rate(result), 1) for side, result in results.items()} for results in rounds],
        "environment": environment(),
    }


if __name__ == "__main__":
    main()
