"""What an engine says of its samples is what the learner computes, and a bad request harms no other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import chi2

from rl.errors import EngineError
from rl.models.encoder import EncodedPrompt
from rl.models.policy import unsampled_ids
from rl.records import VersionSpan
from rl.rollout.engine import Engine, EngineLoad, Generated
from rl.rollout.transformers_engine import TransformersEngine
from tests.integration.support import ENGINE, Paths, Teacher, assert_covers, assert_same_logprobs, differences, request

pytestmark = pytest.mark.timeout(900)


def ids_of(generated: Generated) -> list[list[int]]:
    return [rollout.token_ids.tolist() for rollout in generated.rollouts]


@pytest.mark.parametrize("temperature", [1.0, 0.6, 1.7])
async def test_behaviour_logprobs_are_the_learners(
    engine: Engine, teacher: Teacher, prompts: list[EncodedPrompt], temperature: float
) -> None:
    options = {"n": 4, "seed": 3, "temperature": temperature, "max_tokens": 24}
    requests = [request(f"p{i}", prompt, **options) for i, prompt in enumerate(prompts)]
    groups = await asyncio.gather(*map(engine.generate, requests))
    plain = []
    for prompt, group in zip(prompts, groups, strict=True):
        behaviour = [rollout.logprobs for rollout in group.rollouts]
        assert_same_logprobs(differences(behaviour, teacher.logprobs(prompt, group, temperature=temperature)))
        plain.append(differences(behaviour, teacher.logprobs(prompt, group)))
        assert {rollout.versions for rollout in group.rollouts} == {
            (VersionSpan(0, 0, len(rollout.token_ids)),) for rollout in group.rollouts
        }
    # Logprobs that ignored the temperature would be far off.
    assert (np.concatenate(plain).mean() > 0.1) == (temperature != 1.0)


async def test_greedy_completions_are_those_of_generate(
    engine: Engine, teacher: Teacher, paths: Paths, prompts: list[EncodedPrompt]
) -> None:
    """Against `generate` of a model that nothing here has touched."""
    from transformers import AutoModelForImageTextToText

    model = AutoModelForImageTextToText.from_pretrained(paths.random, dtype=torch.float32)
    banned = list(unsampled_ids(teacher.encoder.config))
    for prompt in (prompts[0], prompts[3], prompts[-1]):
        options = {"temperature": 0.0, "max_tokens": 32}
        group = await engine.generate(request("greedy", prompt, **options))
        ids = torch.from_numpy(group.prompt_ids.astype(np.int64))[None]
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if prompt.images:
            inputs |= dict(teacher.encoder.image_processor(images=list(prompt.images), return_tensors="pt"))
            inputs["mm_token_type_ids"] = (ids == teacher.encoder.config.image_token_id).int()
        whole = model.generate(**inputs, max_new_tokens=32, do_sample=False, suppress_tokens=banned)
        assert ids_of(group)[0] == whole[0, ids.shape[1] :].tolist()
        # A greedy token's logprob is the one at temperature 1.
        assert_same_logprobs(differences([group.rollouts[0].logprobs], teacher.logprobs(prompt, group)))


async def test_samples_follow_the_distribution(engine: Engine, teacher: Teacher, prompts: list[EncodedPrompt]) -> None:
    """First tokens of 600 seeds against their probabilities; chi-squared, which fails one good engine in 10^4."""
    prompt, n = prompts[-1], 600
    group = await engine.generate(request("many", prompt, n=n, seed=1000, temperature=0.5, max_tokens=1))
    shown = np.concatenate([rollout.token_ids for rollout in group.rollouts])
    ids = torch.from_numpy(group.prompt_ids.astype(np.int64))[None]
    with torch.no_grad():
        logits = teacher.policy.model(input_ids=ids).logits[0, -1] / 0.5
    logits[list(unsampled_ids(teacher.encoder.config))] = -torch.inf
    expected = n * logits.softmax(-1).numpy()
    common = np.flatnonzero(expected >= 5)
    assert len(common) >= 10
    wanted = np.append(expected[common], n - expected[common].sum())
    counts = np.bincount(shown, minlength=len(expected))[common]
    found = np.append(counts, n - counts.sum())
    assert ((found - wanted) ** 2 / wanted).sum() < chi2.ppf(1 - 1e-4, len(wanted) - 1)


async def test_a_seed_decides_the_samples(engine: Engine, prompts: list[EncodedPrompt]) -> None:
    """Whatever runs beside a request, and whether its completions are asked for together or one by one."""
    options = {"max_tokens": 20}
    alone = await engine.generate(request("a", prompts[0], n=3, seed=7, **options))
    single = [await engine.generate(request(f"b{i}", prompts[0], seed=7 + i, **options)) for i in range(3)]
    busy, *_ = await asyncio.gather(
        engine.generate(request("c", prompts[0], n=3, seed=7, **options)),
        *(engine.generate(request(f"d{i}", prompt, n=2, seed=i, **options)) for i, prompt in enumerate(prompts)),
    )
    assert ids_of(alone) == ids_of(busy) == [ids_of(one)[0] for one in single]
    assert len(set(map(tuple, ids_of(alone)))) == 3
    other = await engine.generate(request("e", prompts[0], n=1, seed=10, **options))
    assert ids_of(other)[0] not in ids_of(alone)


async def test_score_is_the_learners_logprob(engine: Engine, teacher: Teacher, prompts: list[EncodedPrompt]) -> None:
    """At temperature 1 over the whole vocabulary, as the probe after a push compares it."""
    for i in (0, 9):
        prompt = prompts[i]
        group = await engine.generate(request(f"s{i}", prompt, n=3, seed=i, temperature=1.5, max_tokens=24))
        parts = [engine.score(prompt.token_ids, prompt.images, rollout.token_ids) for rollout in group.rollouts]
        scores = await asyncio.gather(*parts)
        assert_same_logprobs(differences(scores, teacher.logprobs(prompt, group, sampled=False)))


async def test_every_token_of_the_vocabulary_is_scored(
    engine: Engine, teacher: Teacher, prompts: list[EncodedPrompt]
) -> None:
    """The last one, too, which SGLang calls 0 in its reply."""
    banned, vocabulary = set(unsampled_ids(teacher.encoder.config)), teacher.encoder.config.get_text_config().vocab_size
    ids = np.array([token for token in (vocabulary - 1, 0, vocabulary - 2, vocabulary - 1) if token not in banned])
    assert ids[-1] == vocabulary - 1
    for prompt in (prompts[0], prompts[-1]):
        group = await engine.generate(request("any", prompt))
        given = replace(group, rollouts=(replace(group.rollouts[0], token_ids=ids.astype(np.int32)),))
        scores = await engine.score(prompt.token_ids, prompt.images, ids)
        assert_same_logprobs(differences([scores], teacher.logprobs(prompt, given, sampled=False)))


async def test_where_answers_end(engine: Engine, teacher: Teacher, prompts: list[EncodedPrompt]) -> None:
    limit, eos = 50, teacher.encoder.eos_id
    requests = [request(f"l{i}", prompt, n=8, seed=i, max_tokens=limit) for i, prompt in enumerate(prompts)]
    groups = await asyncio.gather(*map(engine.generate, requests))
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    assert {rollout.finish_reason for rollout in rollouts} == {"stop", "length"}
    for rollout in rollouts:
        ids = rollout.token_ids.tolist()
        if rollout.finish_reason == "stop":
            assert ids.index(eos) == len(ids) - 1  # the stop token is kept: the learner trains on it
        else:
            assert len(ids) == limit and eos not in ids
        assert len(rollout.logprobs) == len(ids)


async def test_the_context_ends_a_completion(engine: Engine, prompts: list[EncodedPrompt]) -> None:
    """With room for more asked for than there is, images included. SGLang leaves the last places empty."""
    for prompt in (prompts[0], prompts[-1]):
        group = await engine.generate(request("full", prompt, n=8, temperature=2.0, max_tokens=510))
        longest = max(len(rollout.token_ids) for rollout in group.rollouts)
        assert {rollout.finish_reason for rollout in group.rollouts} <= {"stop", "length"}
        assert all(
            508 <= len(group.prompt_ids) + len(rollout.token_ids) <= 512
            for rollout in group.rollouts
            if rollout.finish_reason == "length"
        )
        assert longest > 100


async def test_image_placeholders_are_never_sampled(
    engine: Engine, teacher: Teacher, prompts: list[EncodedPrompt]
) -> None:
    """A hot random model spreads over 351 ids: without the ban each of four would come about 25 times here."""
    requests = [request(f"h{i}", prompts[i], n=32, seed=100 * i, temperature=2.0, max_tokens=100) for i in (0, 1, 8, 9)]
    groups = await asyncio.gather(*map(engine.generate, requests))
    sampled = np.concatenate([rollout.token_ids for group in groups for rollout in group.rollouts])
    counts = np.bincount(sampled, minlength=len(teacher.encoder.tokenizer))
    banned = list(unsampled_ids(teacher.encoder.config))
    assert len(banned) == 4
    assert counts[banned].sum() == 0
    assert len(sampled) > 8000
    assert np.median(counts) > 10


@pytest.mark.parametrize(
    "case",
    [
        "too_long",
        "image_without_placeholder",
        "placeholder_without_image",
        "too_many_images",
        "unknown_token",
        "negative_token",
        "empty",
    ],
)
async def test_a_bad_request_is_refused_alone(engine: Engine, prompts: list[EncodedPrompt], case: str) -> None:
    image, text = prompts[0], prompts[-1]
    bad, said = {
        "too_long": (replace(text, token_ids=text.token_ids * 60), "context length is 512"),
        "image_without_placeholder": (replace(text, images=image.images), r"1 image\(s\) and 0 placeholder"),
        "placeholder_without_image": (replace(image, images=()), r"0 image\(s\) and 1 placeholder"),
        "too_many_images": (replace(image, token_ids=image.token_ids * 2, images=image.images * 2), "At most 1 image"),
        "unknown_token": (replace(text, token_ids=(1, 2, 100_000)), "100000"),
        "negative_token": (replace(text, token_ids=(1, -2)), "-2"),
        "empty": (replace(text, token_ids=()), "empty"),
    }[case]
    before = await engine.generate(request("before", image, n=2, max_tokens=12))
    running = asyncio.create_task(engine.generate(request("running", image, n=2, max_tokens=12)))
    with pytest.raises(EngineError, match=said):
        await engine.generate(request("bad", bad))
    assert ids_of(await running) == ids_of(before)
    assert ids_of(await engine.generate(request("after", image, n=2, max_tokens=12))) == ids_of(before)


@pytest.mark.parametrize("settings", [{"temperature": 2.5}, {"temperature": -1.0}, {"max_tokens": 0}, {"n": 0}])
async def test_settings_out_of_range_are_refused(
    engine: Engine, prompts: list[EncodedPrompt], settings: dict[str, float]
) -> None:
    with pytest.raises(EngineError, match="sampling settings"):
        await engine.generate(request("bad", prompts[0], **settings))


async def test_an_id_in_flight_is_refused(engine: Engine, prompts: list[EncodedPrompt]) -> None:
    first = asyncio.create_task(engine.generate(request("twin", prompts[-1], n=2, max_tokens=40)))
    second = asyncio.create_task(engine.generate(request("twin", prompts[-1], n=2, max_tokens=40)))
    with pytest.raises(EngineError, match="in flight already"):
        await second
    assert len((await first).rollouts) == 2


@pytest.mark.parametrize("n", [1, 4])
async def test_abort_keeps_what_was_sampled(
    engine: Engine, teacher: Teacher, prompts: list[EncodedPrompt], n: int
) -> None:
    text = prompts[-1]
    options = {"n": n, "seed": 8, "temperature": 2.0, "max_tokens": 400}
    long = asyncio.create_task(engine.generate(request("long", text, **options)))
    await asyncio.sleep(0)  # it is handed in first
    await engine.generate(request("short", text, max_tokens=4))  # by its end the long one is under way
    await engine.abort("long")
    aborted = await long
    assert [rollout.finish_reason for rollout in aborted.rollouts].count("abort") >= n - 1
    assert len(aborted.rollouts) == n
    assert_same_logprobs(
        differences([r.logprobs for r in aborted.rollouts], teacher.logprobs(text, aborted, temperature=2.0))
    )
    await engine.abort("long")  # of a request that is gone: nothing happens
    whole = await engine.generate(request("long", text, **options))
    for part, all_of_it in zip(ids_of(aborted), ids_of(whole), strict=True):
        assert part and part == all_of_it[: len(part)]
    for rollout in aborted.rollouts:
        assert_covers(rollout.versions, len(rollout.token_ids))


async def test_an_abort_reaches_one_request(engine: Engine, prompts: list[EncodedPrompt]) -> None:
    """Not those whose id begins with its id."""
    text = prompts[-1]
    tasks = [
        asyncio.create_task(engine.generate(request(name, text, n=2, max_tokens=60))) for name in ("r-1", "r-12", "r-")
    ]
    await asyncio.sleep(0)
    await engine.generate(request("short", text, max_tokens=2))
    await engine.abort("r-1")
    first, *others = await asyncio.gather(*tasks)
    assert "abort" in {rollout.finish_reason for rollout in first.rollouts}
    assert {rollout.finish_reason for other in others for rollout in other.rollouts} <= {"stop", "length"}


async def test_abort_of_a_request_that_waits(engine: Engine, prompts: list[EncodedPrompt]) -> None:
    """More completions than are decoded at once: those that have not begun end with no token."""
    n = 3 * ENGINE.max_num_seqs  # so that most wait even after many have ended by themselves
    long = asyncio.create_task(engine.generate(request("crowd", prompts[-1], n=n, temperature=2.0, max_tokens=450)))
    await asyncio.sleep(0)
    await engine.ping()  # it has been handed over, and cannot end so soon
    await engine.abort("crowd")
    aborted = await long
    assert len(aborted.rollouts) == n
    assert min(len(rollout.token_ids) for rollout in aborted.rollouts) == 0
    for rollout in aborted.rollouts:
        assert len(rollout.logprobs) == len(rollout.token_ids)
        if not len(rollout.token_ids):
            assert (rollout.finish_reason, rollout.versions) == ("abort", ())
    assert len((await engine.generate(request("after", prompts[-1]))).rollouts) == 1


async def test_busy_intervals_are_when_it_worked(engine: Engine, prompts: list[EncodedPrompt]) -> None:
    engine.drain_busy()
    begin = time.time()
    await engine.generate(request("work", prompts[0], n=2, max_tokens=20))
    await engine.ping()  # the last step has been noted
    end = time.time()
    intervals = engine.drain_busy()
    assert intervals and all(begin <= start < stop <= end for start, stop in intervals)
    assert engine.drain_busy() == []


async def test_a_caller_that_goes_away_harms_nobody(engine: Engine, prompts: list[EncodedPrompt]) -> None:
    tasks = [asyncio.create_task(engine.generate(request(f"x{i}", prompts[0], max_tokens=30))) for i in range(8)]
    await asyncio.sleep(0)  # each has handed its request in and waits
    for task in tasks:
        task.cancel()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(end, asyncio.CancelledError) for end in ended)
    assert len((await engine.generate(request("y", prompts[0]))).rollouts) == 1


async def test_load_says_what_decodes_and_what_waits(engine: Engine, prompts: list[EncodedPrompt]) -> None:
    slots = ENGINE.max_num_seqs
    while engine.load().running or engine.load().waiting:  # what callers of other tests left behind
        await asyncio.sleep(0.001)
    assert engine.load() == EngineLoad(running=0, waiting=0, kv_use=0.0, slots=slots)
    long = asyncio.create_task(engine.generate(request("l", prompts[-1], n=slots + 6, max_tokens=400, temperature=2.0)))
    while (load := engine.load()).running < slots:
        await asyncio.sleep(0.001)
    assert load.running == slots and 0 < load.waiting <= 6
    await engine.ping()  # at which an engine in another process says what its cache holds
    if not isinstance(engine, TransformersEngine):  # whose cache has no bounds
        assert 0 < engine.load().kv_use < 1
    await engine.abort("l")
    await long
    await engine.ping()
    assert (engine.load().running, engine.load().waiting) == (0, 0)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("backend", ["vllm", "sglang"])
async def test_sequences_that_a_full_cache_holds_up_wait(
    start: Callable[..., Engine], backend: str, prompts: list[EncodedPrompt]
) -> None:
    """16 MiB hold the keys and values of 32,768 tokens here: of 44 sequences of 1,000 to 2,000 tokens not all decode,
    although 64 have a slot. Admission goes by that."""
    engine = start(backend, kv_cache_mb=16, max_model_len=2048)
    ids = prompts[-1].token_ids
    long = [replace(prompts[-1], token_ids=(100 + i, *ids * (1000 // len(ids)))) for i in range(44)]
    options = {"max_tokens": 900, "temperature": 2.0}
    tasks = [asyncio.create_task(engine.generate(request(f"c{i}", one, **options))) for i, one in enumerate(long)]
    await asyncio.sleep(0)
    while (load := engine.load()).kv_use < 0.5:
        assert not any(task.done() and task.exception() for task in tasks)
        await engine.ping()
    assert load.running > 0 and load.waiting > 0 and load.running + load.waiting <= 44
    assert load.kv_use <= 1
    await asyncio.gather(*(engine.abort(f"c{i}") for i in range(44)), *tasks)
    await engine.ping()
    assert engine.load() == EngineLoad(0, 0, 0.0, 64)
