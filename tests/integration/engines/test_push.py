"""Weight pushes into a running engine: what it samples after one is what the new policy would, token by token."""

from __future__ import annotations

import asyncio
import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rl.config.learner import LoraConfig
from rl.config.sync import SyncConfig
from rl.learner.export import checkpoint_tensors
from rl.models.encoder import EncodedPrompt
from rl.models.lora import add_adapters
from rl.models.policy import Policy
from rl.records import WeightBundle
from rl.rollout.engine import Engine
from rl.sync.bundle import pack
from rl.sync.learner import WeightSync
from rl.sync.worker import WeightReceiver
from tests.integration.support import (
    MAX_DELTA,
    Teacher,
    assert_covers,
    assert_same_logprobs,
    differences,
)
from tests.integration.support import request as ask

pytestmark = pytest.mark.timeout(900)

NOISE = 0.02
"""Standard deviation added to every weight from version to version: far more than a step, so that mix-ups show."""


@pytest.fixture(scope="module")
def versions(teacher: Teacher) -> list[Policy]:
    """Four policies, each some noise away from the one before; version 0 is the random model."""
    policies = [teacher.policy]
    for seed in (1, 2, 3):
        generator = torch.Generator().manual_seed(seed)
        policy = copy.deepcopy(policies[-1])
        for parameter in policy.parameters():
            parameter.data.add_(NOISE * torch.randn(parameter.shape, generator=generator))
        policies.append(policy)
    return policies


def bundle_of(policy: Policy, version: int) -> WeightBundle:
    return pack(checkpoint_tensors(policy), version)


def test_the_language_head_is_tied(teacher: Teacher) -> None:
    """The case of the tests below that engines get wrong: the head has no weight of its own in a bundle."""
    head, embedding = teacher.policy.model.get_output_embeddings(), teacher.policy.model.get_input_embeddings()
    assert head.weight is embedding.weight
    assert not any("lm_head" in name for name in checkpoint_tensors(teacher.policy))


async def test_after_a_push_the_engine_is_the_new_policy(
    engine: Engine, teacher: Teacher, prompts: list[EncodedPrompt], versions: list[Policy]
) -> None:
    for version in (1, 2, 3):
        await engine.update_weights(bundle_of(versions[version], version))
        assert engine.version == version
        requests = [ask(f"v{version}-{i}", prompt, n=2, seed=i, max_tokens=16) for i, prompt in enumerate(prompts)]
        groups = await asyncio.gather(*map(engine.generate, requests))
        for prompt, group in zip(prompts, groups, strict=True):
            assert {span.version for rollout in group.rollouts for span in rollout.versions} == {version}
            behaviour = [rollout.logprobs for rollout in group.rollouts]
            assert_same_logprobs(differences(behaviour, teacher.logprobs(prompt, group, policy=versions[version])))
            old = teacher.logprobs(prompt, group, policy=versions[version - 1])
            assert differences(behaviour, old).mean() > 0.1
            scores = [await engine.score(prompt.token_ids, prompt.images, r.token_ids) for r in group.rollouts]
            plain = teacher.logprobs(prompt, group, policy=versions[version], sampled=False)
            assert_same_logprobs(differences(scores, plain))


@pytest.mark.parametrize("transport", ["object_store", "shm", "gloo", "disk"])
async def test_every_transport_brings_the_same_policy(
    request: pytest.FixtureRequest,
    engine: Engine,
    teacher: Teacher,
    prompts: list[EncodedPrompt],
    versions: list[Policy],
    tmp_path: Path,
    transport: str,
) -> None:
    if transport == "object_store":
        request.getfixturevalue("cluster")
    config = SyncConfig(transport=transport, timeout_s=80)
    sync, receiver = WeightSync(config, tmp_path), WeightReceiver(config)
    for version in (1, 2):
        ticket = sync.publish(checkpoint_tensors(versions[version]), version)
        async with receiver.fetched(ticket) as bundle:
            await engine.update_weights(bundle)
        assert receiver.transport == transport
    sync.close()
    receiver.close()
    # The engine must hold a copy: shared memory is gone or of another version by now.
    group = await engine.generate(ask(f"by-{transport}", prompts[0], n=2, max_tokens=8))
    truth = teacher.logprobs(prompts[0], group, policy=versions[2])
    assert_same_logprobs(differences([rollout.logprobs for rollout in group.rollouts], truth))


async def test_adapters_reach_the_engine_merged(engine: Engine, teacher: Teacher, prompts: list[EncodedPrompt]) -> None:
    """The learner computes `W x + B A x` and the engine `(W + B A) x`, both in float32."""
    pytest.importorskip("peft", reason="the extra `lora` is not installed")
    policy = copy.deepcopy(teacher.policy)
    torch.manual_seed(0)
    add_adapters(policy, LoraConfig(rank=4, targets=("*_proj", "*visual.merger.*")))
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.05)
    await engine.update_weights(bundle_of(policy, 1))
    requests = [ask(f"lora-{i}", prompt, n=2, seed=i, max_tokens=16) for i, prompt in enumerate(prompts)]
    groups = await asyncio.gather(*map(engine.generate, requests))
    for prompt, group in zip(prompts, groups, strict=True):
        behaviour = [rollout.logprobs for rollout in group.rollouts]
        assert_same_logprobs(differences(behaviour, teacher.logprobs(prompt, group, policy=policy)))
        assert differences(behaviour, teacher.logprobs(prompt, group)).mean() > 0.05


async def test_a_bundle_of_the_object_store_is_read_only(
    engine: Engine, prompts: list[EncodedPrompt], versions: list[Policy]
) -> None:
    bundle = bundle_of(versions[1], 1)
    bundle.buffer.flags.writeable = False
    before = bundle.buffer.copy()
    await engine.update_weights(bundle)
    await engine.generate(ask("r", prompts[0]))
    await engine.update_weights(bundle_of(versions[2], 2))
    assert np.array_equal(bundle.buffer, before)


async def test_requests_live_through_pushes(
    engine: Engine, teacher: Teacher, prompts: list[EncodedPrompt], versions: list[Policy]
) -> None:
    """Two pushes under running requests: each token was sampled by the policy that its span names."""
    requests = [ask(f"f{i}", prompt, n=3, seed=10 * i, max_tokens=250) for i, prompt in enumerate(prompts)]
    running = [asyncio.create_task(engine.generate(one)) for one in requests]
    for version in (1, 2):
        # By the end of a short request the long ones have advanced about as far, and have far to go.
        await engine.generate(ask(f"clock{version}", prompts[-1], n=4, max_tokens=20, temperature=2.0))
        times = await engine.update_weights(bundle_of(versions[version], version))
        assert 0 < times.apply_s <= times.pause_s
    groups = await asyncio.gather(*running)
    crossed = {"image": 0, "text": 0}
    for prompt, group in zip(prompts, groups, strict=True):
        under = [teacher.logprobs(prompt, group, policy=versions[version]) for version in (0, 1, 2)]
        for i, rollout in enumerate(group.rollouts):
            assert_covers(rollout.versions, len(rollout.token_ids))
            for span in rollout.versions:
                part = slice(span.start, span.end)
                deltas = [np.abs(rollout.logprobs[part] - under[version][i][part]) for version in (0, 1, 2)]
                assert deltas[span.version].max() < MAX_DELTA
                if span.end - span.start >= 8:
                    assert all(deltas[other].mean() > 0.02 for other in {0, 1, 2} - {span.version})
            if [span.version for span in rollout.versions] == [0, 1, 2]:
                crossed["image" if prompt.images else "text"] += 1
    assert crossed["image"] >= 6 and crossed["text"] >= 4


async def test_keys_and_values_that_are_kept(
    engine: Engine, teacher: Teacher, prompts: list[EncodedPrompt], versions: list[Policy]
) -> None:
    """After the swap the running requests are off from both policies, which is the price; new requests are not."""
    running = [asyncio.create_task(engine.generate(ask(f"k{i}", p, n=2, seed=i, max_tokens=250)))
               for i, p in enumerate(prompts)]  # fmt: skip
    await engine.generate(ask("clock", prompts[-1], n=4, max_tokens=20, temperature=2.0))
    await engine.update_weights(replace(bundle_of(versions[1], 1), keep_cache=True))
    long = replace(prompts[-1], token_ids=prompts[-1].token_ids * 14)
    fresh = [await engine.generate(ask(f"fresh{i}", p, max_tokens=16)) for i, p in enumerate((prompts[0], long))]
    for prompt, group in zip((prompts[0], long), fresh, strict=True):
        truth = teacher.logprobs(prompt, group, policy=versions[1])
        assert_same_logprobs(differences([group.rollouts[0].logprobs], truth))
    drift = []
    for prompt, group in zip(prompts, await asyncio.gather(*running), strict=True):
        old, new = (teacher.logprobs(prompt, group, policy=versions[version]) for version in (0, 1))
        for i, rollout in enumerate(group.rollouts):
            assert_covers(rollout.versions, len(rollout.token_ids))
            for span in rollout.versions:
                part = slice(span.start, span.end)
                if span.version == 0:
                    assert np.abs(rollout.logprobs[part] - old[i][part]).max() < MAX_DELTA
                elif span.start > 0:
                    drift.append(np.abs(rollout.logprobs[part] - new[i][part]))
    assert len(drift) >= 8 and np.concatenate(drift).mean() > 100 * MAX_DELTA


async def test_a_paused_engine_takes_weights_and_samples_nothing(
    engine: Engine, teacher: Teacher, prompts: list[EncodedPrompt], versions: list[Policy]
) -> None:
    """Of the version that came and went while it was paused there is no token."""
    text = prompts[-1]
    running = [asyncio.create_task(engine.generate(ask(f"p{i}", p, n=2, seed=i, max_tokens=250)))
               for i, p in enumerate(prompts)]  # fmt: skip
    ended = asyncio.create_task(engine.generate(ask("ended", text, temperature=2.0, max_tokens=450)))
    await engine.generate(ask("clock", text, n=4, max_tokens=20, temperature=2.0))
    await engine.pause()
    await engine.pause()
    new = asyncio.create_task(engine.generate(ask("new", text, max_tokens=8)))
    late = asyncio.create_task(engine.generate(ask("late", text, temperature=2.0, max_tokens=450)))
    for version in (1, 2):
        times = await engine.update_weights(bundle_of(versions[version], version))
        assert 0 < times.apply_s <= times.pause_s
        for _ in range(5):  # each takes a step of an engine that runs
            await engine.ping()
    assert not new.done()
    aborts = [asyncio.create_task(engine.abort(name)) for name in ("ended", "late")]
    for _ in range(5):
        await engine.ping()  # they have been told by then, and can't be heard
    await engine.resume()
    await engine.resume()
    await asyncio.gather(*aborts)
    assert {(await task).rollouts[0].finish_reason for task in (ended, late)} == {"abort"}
    assert [span.version for span in (await new).rollouts[0].versions] == [2]
    crossed = 0
    for prompt, group in zip(prompts, await asyncio.gather(*running), strict=True):
        under = {version: teacher.logprobs(prompt, group, policy=versions[version]) for version in (0, 2)}
        for i, rollout in enumerate(group.rollouts):
            assert_covers(rollout.versions, len(rollout.token_ids))
            for span in rollout.versions:
                part = slice(span.start, span.end)
                assert np.abs(rollout.logprobs[part] - under[span.version][i][part]).max() < MAX_DELTA
            crossed += [span.version for span in rollout.versions] == [0, 2]
    assert crossed >= 4


@pytest.mark.parametrize("kind", ["image", "long"])
async def test_a_push_drops_cached_prompts(
    engine: Engine, teacher: Teacher, prompts: list[EncodedPrompt], versions: list[Policy], kind: str
) -> None:
    """The same prompt, warm in the image cache or (as it fills a block of 128 tokens) in the prefix cache."""
    prompt = prompts[0] if kind == "image" else replace(prompts[-1], token_ids=prompts[-1].token_ids * 14)
    assert kind == "image" or 128 < len(prompt.token_ids) < 144
    cold = await engine.generate(ask("cold", prompt, max_tokens=16))
    warm = await engine.generate(ask("warm", prompt, max_tokens=16))
    assert cold.rollouts[0].token_ids.tolist() == warm.rollouts[0].token_ids.tolist()
    await engine.update_weights(bundle_of(versions[1], 1))
    pushed = await engine.generate(ask("pushed", prompt, max_tokens=16))
    truth = teacher.logprobs(prompt, pushed, policy=versions[1])
    assert_same_logprobs(differences([pushed.rollouts[0].logprobs], truth))
