"""Two ranks make the update of one rank, with unlike numbers of micro-batches, and images on one of them only."""

from __future__ import annotations

import time
from itertools import chain
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp

from rl.models.freeze import set_trainable
from tests.unit.learner.ranks import (
    ADAPTERS,
    FROZEN,
    MEMORY,
    OBJECTIVES,
    PLANNED,
    TEXT,
    TEXT_PARTS,
    VISION_PARTS,
    main,
    resumed_step,
    scenarios,
)
from tests.unit.learner.tiny import OPTIMIZER, cut, from_folder, text_policy, text_samples, update, vision_policy

Results = dict[str, Any]
SECONDS = 90


@pytest.fixture(scope="module")
def both(one_rank: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Results, list[Results]]:
    """Results of one rank with all micro-batches, and of each of two ranks with its own."""
    folder = tmp_path_factory.mktemp("ranks")
    text_policy(seed=3).model.save_pretrained(folder / "text")
    vision_policy().model.save_pretrained(folder / "vision")
    every = list(chain(*TEXT_PARTS))
    resumed_step(str(folder), None, "one", every)
    processes = mp.spawn(main, args=(2, str(folder)), nprocs=2, join=False)
    alone = scenarios({"text": every, "vision": list(chain(*VISION_PARTS))}, str(folder))
    deadline = time.monotonic() + SECONDS
    try:
        while not processes.join(timeout=SECONDS):  # returns when any of them ends
            if time.monotonic() > deadline:
                pytest.fail(f"the ranks did not finish within {SECONDS} s: their collectives do not match")
    finally:
        for process in processes.processes:
            process.kill()
    alone["resumed"] = resumed_step(str(folder), "two", None, every)
    strategy = from_folder(f"{folder}/text", ["*layers.1.*"])
    for _ in range(3):
        alone["straight"] = update(strategy, cut(text_samples(strategy.policy), every), 7)
    return alone, [torch.load(folder / f"rank_{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("scenario", [*TEXT, "vision", "packed", *PLANNED, *FROZEN, *MEMORY, *ADAPTERS])
def test_the_same_parameters(both, scenario):
    alone, ranks = both
    for rank in ranks:
        assert rank[scenario].keys() == alone[scenario].keys()
        for name in alone[scenario].keys() - {"count", "tokens"}:
            expected = alone[scenario][name]
            torch.testing.assert_close(
                rank[scenario][name], expected, rtol=0, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}"
            )


def test_tiled_logits_take_the_same_step(both):
    """Many tiles on two ranks, against a single tile on one."""
    alone, ranks = both
    for result in (alone, *ranks):
        for name, expected in alone["blocks"].items():
            torch.testing.assert_close(result["tiles"][name], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_objectives_take_the_same_step(both, name):
    """Normalisers, the choice of tokens and the reference do not depend on who holds which tokens."""
    alone, ranks = both
    for rank in ranks:
        for key in alone[name].keys() - {"sums"}:
            torch.testing.assert_close(rank[name][key], alone[name][key], rtol=0, atol=1e-6)
    total = {key: sum(rank[name]["sums"][key] for rank in ranks) for key in alone[name]["sums"]}
    assert total == pytest.approx(alone[name]["sums"], rel=1e-4, abs=1e-5)


def test_packed_micro_batches_do_the_padded_update(both):
    alone, _ = both
    for name, expected in alone["blocks"].items():
        torch.testing.assert_close(alone["packed"][name], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", PLANNED)
def test_ranks_get_the_same_number_of_packed_micro_batches(both, name):
    """Their tokens are those of one rank."""
    alone, ranks = both
    counts = [int(rank[name]["count"]) for rank in ranks]
    assert counts[0] == counts[1] > 1
    tokens = torch.cat([rank[name]["tokens"] for rank in ranks])
    assert tokens.max() <= PLANNED[name] and tokens.sum() == alone[name]["tokens"].sum()


@pytest.mark.parametrize("name", MEMORY)
def test_settings_of_memory_change_no_number(both, name):
    alone, ranks = both
    for result in (alone, *ranks):
        assert result[name].keys() == alone["vision"].keys()
        for key, expected in alone["vision"].items():
            torch.testing.assert_close(result[name][key], expected, rtol=0, atol=1e-6, msg=lambda m, k=key: f"{k}: {m}")


def test_only_adapters_move(both):
    alone, _ = both
    start = dict(vision_policy().model.named_parameters())
    for name in ADAPTERS:
        for key, tensor in alone[name].items():
            if key.endswith("lora_B.default.weight"):
                assert tensor.abs().max() > 1e-4  # from zero
            elif (plain := key.replace(".base_layer.", ".")) in start:
                assert torch.equal(tensor, start[plain]), key
    for key, tensor in alone["lora"].items():
        assert torch.equal(tensor, alone["lora on meta"][key]), key


def test_checkpoints_are_resharded(both):
    """One rank, then two, then one: each began from the checkpoint of the one before."""
    alone, _ = both
    for key, expected in alone["straight"].items():
        torch.testing.assert_close(alone["resumed"][key], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", FROZEN)
def test_only_what_is_not_frozen_moves(both, name):
    policy = vision_policy()
    set_trainable(policy, FROZEN[name])
    alone, _ = both
    for key, parameter in policy.model.named_parameters():
        assert torch.equal(alone[name][key], parameter) == (not parameter.requires_grad), key


@pytest.mark.parametrize("name", ["vision", "offloaded", "lora"])
def test_gradients_were_clipped(both, name):
    """So that equal parameters speak of equal norms, too: those of the shards of all ranks together."""
    alone, ranks = both
    assert alone[name]["norm"] > OPTIMIZER.clip_norm
    assert all(rank[name]["norm"] == pytest.approx(float(alone[name]["norm"]), rel=1e-5) for rank in ranks)


def test_the_vision_tower_learned_from_the_one_image(both):
    alone, _ = both
    start = {name.removeprefix("model."): p for name, p in vision_policy().named_parameters()}
    moved = [name for name, p in start.items() if ".visual." in name and not torch.equal(alone["vision"][name], p)]
    assert any("blocks.0" in name for name in moved) and any("deepstack_merger_list" in name for name in moved)


def test_proximal_logprobs_with_unlike_numbers_of_micro_batches(both):
    alone, ranks = both
    got = [logprobs for rank in ranks for logprobs in rank["proximal"]]
    assert len(got) == len(alone["proximal"]) == 4
    for mine, expected in zip(got, alone["proximal"], strict=True):
        torch.testing.assert_close(mine, expected, rtol=0, atol=1e-6)
