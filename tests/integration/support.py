"""What the integration tests share: small settings, teacher-forced logprobs, and what a session leaves behind."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch

from rl.batch.sequences import ImageTable, collate
from rl.config.base import parse_config
from rl.config.data import PromptConfig
from rl.config.rollout import EngineConfig, SglangConfig
from rl.config.sync import SyncConfig
from rl.config.train import TrainConfig
from rl.learner.export import checkpoint_tensors
from rl.learner.samples import rollout_samples
from rl.models.encoder import EncodedPrompt, PromptEncoder
from rl.models.policy import Policy, load_policy
from rl.records import Group, VersionSpan, WeightBundle
from rl.rollout.engine import Engine, Generated, GenerateRequest
from rl.rollout.sglang_server import PYTHON
from rl.sync.bundle import pack
from rl.sync.worker import WeightReceiver

EngineT = TypeVar("EngineT", bound=Engine)

PROMPTS = PromptConfig(chat="plain", think="Think.", normal="Answer.", spatial="")
ENGINE = EngineConfig(dtype="float32", max_model_len=512, max_num_seqs=64, kv_cache_mb=64, enforce_eager=True)
MAX_DELTA = 1e-4
"""Largest |engine - learner| logprob of one token in nats, both in float32."""
MEAN_DELTA = 1e-5

START_S = 1500.0
"""SGLang's three processes import for half a minute each, and for many minutes beside other work."""

SESSION_MARK = "RL_TEST_SESSION"
"""Environment variable that every process started by the tests inherits."""


@dataclass(frozen=True)
class Paths:
    """Files that the session builds once."""

    train: str
    eval: str
    random: str
    """Model with random weights: long answers, no right ones."""
    tuned: str
    """The same after a short SFT: it answers in the right form and is right at times."""


class Teacher:
    """The learner's side of a comparison: logprobs of given tokens under a policy in this process."""

    def __init__(self, model: str) -> None:
        self.policy = load_policy(model)
        self.encoder = PromptEncoder(model, PROMPTS)
        self._images = ImageTable()

    def logprobs(
        self,
        prompt: EncodedPrompt,
        generated: Generated,
        *,
        policy: Policy | None = None,
        temperature: float = 1.0,
        sampled: bool = True,
    ) -> list[np.ndarray]:
        """float32 [T] for each rollout of `generated`."""
        policy = policy or self.policy
        group = Group(0, "x", generated.prompt_ids, prompt.images, prompt.digests, generated.rollouts)
        samples = rollout_samples(group, [0.0] * len(group.rollouts), policy, self.encoder, self._images)
        tokens = [sample.tokens for sample in samples]
        with torch.no_grad():
            batches = [collate(tokens, [i], self.encoder.pad_id, self._images) for i in range(len(tokens))]
            return [policy(batch, temperature, sampled).logprobs.numpy() for batch in batches]


def request(name: str, prompt: EncodedPrompt, **options: Any) -> GenerateRequest:
    """A request with defaults for what a test does not care about."""
    settings: dict[str, Any] = {"n": 1, "seed": 0, "temperature": 1.0, "max_tokens": 8} | options
    return GenerateRequest(name, prompt.token_ids, prompt.images, **settings)


async def with_first_weights(engine: EngineT, teacher: Teacher) -> EngineT:
    """The engine on the model that the teacher loaded, as version 0, whatever the test before pushed."""
    if engine.version != 0:
        await engine.update_weights(pack(checkpoint_tensors(teacher.policy), 0))
    return engine


async def bundle_behind(reference: Any) -> WeightBundle:
    """A copy of the weights that a reference to a ticket stands for."""
    async with WeightReceiver(SyncConfig()).fetched(await reference) as bundle:
        return replace(bundle, buffer=np.array(bundle.buffer))


def differences(ours: Iterable[np.ndarray], theirs: Iterable[np.ndarray]) -> np.ndarray:
    """|a - b| over all tokens, flat."""
    return np.concatenate([np.abs(a - b) for a, b in zip(ours, theirs, strict=True)])


def assert_same_logprobs(deltas: np.ndarray) -> None:
    assert deltas.max() < MAX_DELTA
    assert deltas.mean() < MEAN_DELTA


def assert_covers(spans: Sequence[VersionSpan], length: int) -> None:
    """Spans run over 0..length without gaps, in order of rising versions."""
    assert [span.start for span in spans] == [0, *(span.end for span in spans[:-1])]
    assert spans[-1].end == length
    assert all(span.start < span.end for span in spans)
    versions = [span.version for span in spans]
    assert versions == sorted(set(versions))


def train_config(paths: Paths, out: Path, **changes: Any) -> TrainConfig:
    """A small RL run on the tuned model; `changes` are dotted keys with `__` for the dot."""
    raw: dict[str, Any] = {
        "model": paths.tuned,
        "out": str(out),
        "steps": 2,
        "data": {"train": paths.train, "prompts": PROMPTS.model_dump()},
        "rollout": {"engine": ENGINE.model_dump(), "sampling": {"max_tokens": 16}},
        "learner": {"tokens_per_microbatch": 1024, "fsdp": {"wrap": "root"}, "optimizer": {"lr": 1e-3}},
        "algo": {"prompts_per_step": 4, "group_size": 6, "max_staleness": 0},
        "probe": {"prompts": 4},
        "stall_timeout_s": 300,
    }
    for key, value in changes.items():
        *sections, last = key.split("__")
        node = raw
        for section in sections:
            node = node.setdefault(section, {})
        node[last] = value
    return parse_config(TrainConfig, raw)


def engine_config(backend: str, **changes: Any) -> EngineConfig:
    """The session's settings for a backend, changed; skips the test where the machine lacks it."""
    settings = ENGINE.model_dump() | {"backend": backend} | changes
    if backend == "sglang":
        if os.environ.get("SKIP_SGLANG"):
            pytest.skip("SKIP_SGLANG is set")
        if PYTHON not in os.environ and not Path(".venv-sglang/.installed").exists():
            pytest.skip("no SGLang here; `make install-sglang` installs it")
        settings["sglang"] = SglangConfig(start_s=START_S).model_dump()
    return EngineConfig.model_validate(settings)


def marked_processes() -> dict[int, str]:
    """pid -> command of the processes, other than this one, that this test session started, wherever they hang."""
    mark = f"{SESSION_MARK}={os.environ[SESSION_MARK]}".encode()
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        # A process may end while it is looked at, or belong to someone else.
        with suppress(OSError):
            if mark in (folder / "environ").read_bytes().split(b"\0") and int(folder.name) != os.getpid():
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if command:  # a zombie has none
                    found[int(folder.name)] = command.strip()
    return found


def shared_memory() -> set[str]:
    """Files in /dev/shm that no process maps or holds open.

    Named semaphores are left out: any Python program on the machine makes them, and nothing says whose they are.
    """
    files = {str(path) for path in Path("/dev/shm").iterdir() if path.is_file() and not path.name.startswith("sem.")}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            maps = (folder / "maps").read_text()
            files = {file for file in files if file not in maps}
        with suppress(OSError):
            files -= {os.readlink(link) for link in (folder / "fd").iterdir()}
    return files
