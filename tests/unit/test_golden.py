"""The framework-neutral vectors of tests/golden, gradients included, and finite differences of the losses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rl.algo.advantages import batch_normalise, group_advantages
from rl.algo.corrections import interpolated_proximal
from rl.algo.covariance import best, budget, covariances, cut, moments, scores, token_priorities
from rl.algo.filters import screen, soft_overlong
from rl.algo.losses import LOSSES, LossInputs
from rl.algo.passk import pass_at_k
from rl.algo.text_checks import is_garbled, is_repeating
from rl.batch.packing import CostModel, Item, bin_cost, pack, pack_ranks
from rl.config.objective import (
    AdvantageConfig,
    CovarianceConfig,
    FilterConfig,
    LossConfig,
    OverlongConfig,
    TextChecksConfig,
)
from tests.golden import derive_losses, derive_packing, derive_rewards

GOLDEN = Path(__file__).parents[1] / "golden"
FILES = derive_losses.contents() | derive_rewards.contents() | derive_packing.contents()
LOSS_FILES = (
    "gspo",
    "grpo",
    "dr_grpo",
    "dapo",
    "gspo_token",
    "sapo",
    "cispo",
    "dual_clip",
    "kl_cov",
    "clip_cov",
    "reference_kl",
    "corrections",
)
SUMS = {
    "tokens": "tokens",
    "clipped": "clip/fraction",
    "dual_clipped": "clip/dual_fraction",
    "weights": "behaviour_weight/mean",
    "capped": "behaviour_weight/capped_fraction",
    "kl_behaviour": "kl/behaviour",
    "kl_update": "kl/update",
    "kl_reference": "kl/reference",
    "selected": "covariance/selected_fraction",
}


def vectors(*files: str) -> list[Any]:
    """(file content, case) of each case, named after file and case."""
    loaded = {file: json.loads((GOLDEN / f"{file}.json").read_text()) for file in files}
    return [
        pytest.param(content, case, id=f"{file}-{case['name']}")
        for file, content in loaded.items()
        for case in content["cases"]
    ]


def loss_inputs(case: dict[str, Any]) -> LossInputs:
    inputs = case["inputs"]
    sequence = torch.tensor(inputs["sequence"])
    tokens = {
        name: torch.tensor(inputs[name], dtype=torch.float64)
        for name in ("current", "proximal", "behaviour", "reference")
        if name in inputs
    }
    if "selected" in inputs:
        tokens["selected"] = torch.tensor(inputs["selected"])
    if "token_advantages" in inputs:
        advantages = torch.tensor(inputs["token_advantages"], dtype=torch.float64)
    else:
        advantages = torch.tensor(inputs["advantages"], dtype=torch.float64)[sequence]
    return LossInputs(**tokens, advantages=advantages, sequence=sequence, sequences=int(sequence.max()) + 1)


def close(got: Any, wanted: Any, tolerance: float) -> None:
    assert got == pytest.approx(wanted, rel=0, abs=tolerance)


@pytest.mark.parametrize(("content", "case"), vectors(*LOSS_FILES))
def test_losses(content, case):
    inputs = loss_inputs(case)
    inputs.current.requires_grad_()
    objective = case.get("objective") or content["objective"]
    config = LossConfig.model_validate({"name": objective, **case["config"]})
    output = LOSSES[objective](inputs, config, case["normaliser"])
    output.loss.backward()
    expected, tolerance = case["expected"], content["tolerance"]
    close(output.loss.item(), expected["loss"], tolerance)
    close(inputs.current.grad.tolist(), expected["gradient"], tolerance)
    assert output.sums.keys() == {SUMS[name] for name in expected["sums"]}
    close({name: output.sums[SUMS[name]] for name in expected["sums"]}, expected["sums"], tolerance)


SMOOTH: dict[str, dict[str, Any]] = {
    "gspo": {},
    "grpo": {},
    "dr_grpo": {},
    "dapo": {"dual_clip": 1.4},
    "sapo": {"tau_negative": 3.0},
    "grpo, icepop": {"correction": {"level": "token", "mode": "icepop", "cap": 1.5, "floor": 0.6}},
    "sapo, kl_cov, k3": {"covariance": {"control": "kl_cov"}, "reference": {"coefficient": 0.3}},
    "dapo, clip_cov, k2": {"covariance": {"control": "clip_cov"}, "reference": {"coefficient": 1, "estimator": "k2"}},
    "gspo, k3": {"reference": {"coefficient": 0.3}, "correction": {"level": "product", "cap": 1.1}},
}
"""Losses whose gradient is that of their value: no factor is held constant."""


@pytest.mark.parametrize("name", SMOOTH)
def test_gradients_are_the_finite_differences_of_the_loss(name):
    generator = torch.Generator().manual_seed(0)

    def draw(scale: float) -> torch.Tensor:
        return scale * torch.randn(12, generator=generator, dtype=torch.float64)

    objective = name.partition(",")[0]
    proximal = draw(1.0) - 2
    sequence = torch.tensor([0] * 5 + [1] * 3 + [2] * 4)
    advantages = torch.tensor([1.5, -0.7, 0.4], dtype=torch.float64)[sequence]
    current = (proximal + draw(0.3)).requires_grad_()
    selected = torch.arange(12) % 4 == 1
    behaviour, reference = proximal + draw(0.5), proximal + draw(0.5)
    inputs = LossInputs(current, proximal, behaviour, advantages, sequence, 3, reference, selected)
    config = LossConfig.model_validate({"name": objective, **SMOOTH[name]})
    LOSSES[objective](inputs, config, 3.0).loss.backward()

    def loss_at(token: int, shift: float) -> float:
        moved = current.detach().clone()
        moved[token] += shift
        return LOSSES[objective](replace(inputs, current=moved), config, 3.0).loss.item()

    step = 1e-6
    slopes = [(loss_at(token, step) - loss_at(token, -step)) / (2 * step) for token in range(12)]
    assert current.grad is not None
    close(current.grad.tolist(), slopes, 1e-8)
    assert any(slopes), "the case must not be clipped everywhere"


@pytest.mark.parametrize("name", ["gspo", "grpo", "dr_grpo", "dapo", "gspo_token", "sapo", "cispo"])
def test_parts_of_a_batch_add_up_to_the_whole(name):
    """Any cut into micro-batches of whole sequences, divided by the normaliser of all, gives the same update."""
    generator = torch.Generator().manual_seed(1)
    lengths = [3, 1, 4, 2, 5]
    sequence = torch.repeat_interleave(torch.arange(5), torch.tensor(lengths))
    proximal, moved, off = torch.randn(3, 15, generator=generator, dtype=torch.float64)
    advantages = torch.randn(5, generator=generator, dtype=torch.float64)[sequence]
    config = LossConfig(name=name, reference={"coefficient": 0.1})
    current, reference = proximal + 0.3 * moved, proximal + 0.1

    def gradient(parts: list[list[int]]) -> torch.Tensor:
        total = torch.zeros(15, dtype=torch.float64)
        for part in parts:
            chosen = torch.isin(sequence, torch.tensor(part))
            leaf = current[chosen].clone().requires_grad_()
            index = torch.searchsorted(torch.tensor(part), sequence[chosen])
            tensors = (values[chosen] for values in (proximal, proximal + 0.3 * off, advantages))
            inputs = LossInputs(leaf, *tensors, index, len(part), reference[chosen])
            LOSSES[name](inputs, config, 7.0).loss.backward()
            total[chosen] = leaf.grad
        return total

    whole = gradient([[0, 1, 2, 3, 4]])
    assert whole.abs().max() > 0
    for parts in ([[0, 2], [1, 3, 4]], [[4], [3], [2], [1], [0]]):
        torch.testing.assert_close(gradient(parts), whole, rtol=0, atol=1e-14)


def test_no_gradient_flows_through_correction_weights():
    case = next(param.values[1] for param in vectors("gspo") if param.values[1]["name"] == "decoupled_and_moved")
    inputs = loss_inputs(case)
    for tensor in (inputs.current, inputs.proximal, inputs.behaviour):
        tensor.requires_grad_()
    LOSSES["gspo"](inputs, LossConfig.model_validate({"name": "gspo", **case["config"]}), 2.0).loss.backward()
    # proximal enters through the ratio only, with the opposite sign of current.
    close(inputs.proximal.grad.tolist(), [-g for g in case["expected"]["gradient"]], 1e-6)
    assert inputs.behaviour.grad is None


@pytest.mark.parametrize(("content", "case"), vectors("group_advantages", "rloo"))
def test_group_advantages(content, case):
    got = group_advantages(case["rewards"], AdvantageConfig.model_validate(case["config"]))
    assert [value is None for value in got] == [value is None for value in case["expected"]]
    close([v for v in got if v is not None], [v for v in case["expected"] if v is not None], content["tolerance"])


@pytest.mark.parametrize(("content", "case"), vectors("batch_normalisation"))
def test_batch_normalisation(content, case):
    for got, expected in zip(batch_normalise(case["groups"]), case["expected"], strict=True):
        assert [value is None for value in got] == [value is None for value in expected]
        close([v for v in got if v is not None], [v for v in expected if v is not None], content["tolerance"])


@pytest.mark.parametrize(("content", "case"), vectors("pass_at_k"))
def test_pass_at_k(content, case):
    close(pass_at_k(case["n"], case["correct"], case["k"]), case["expected"], content["tolerance"])


@pytest.mark.parametrize(("content", "case"), vectors("proximal"))
def test_interpolated_proximal(content, case):
    inputs = case["inputs"]
    behaviour, current, age = (
        torch.tensor(inputs[name], dtype=torch.float64) for name in ("behaviour", "current", "age")
    )
    got = interpolated_proximal(current.requires_grad_(), behaviour, age, inputs["done"])
    assert not got.requires_grad
    close(got.tolist(), case["expected"], content["tolerance"])


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize(("content", "case"), vectors("covariance_selection"))
def test_choice_of_tokens(content, case, ranks):
    """The same tokens, however their sequences are spread over ranks."""
    inputs, expected = case["inputs"], case["expected"]
    config = CovarianceConfig.model_validate(case["config"])
    sequence = torch.repeat_interleave(torch.arange(3), torch.tensor(inputs["lengths"]))
    draws = [token_priorities(key, n) for key, n in zip(inputs["keys"], inputs["lengths"], strict=True)]
    priorities = torch.from_numpy(np.concatenate(draws))
    close(priorities.tolist(), expected["priorities"], content["tolerance"])
    advantages, logprobs = (torch.tensor(inputs[name], dtype=torch.float64) for name in ("advantages", "logprobs"))
    parts = [sequence % ranks == rank for rank in range(ranks)]
    sums = [moments(advantages[part], logprobs[part]) for part in parts]
    total = {name: sum(of_rank[name] for of_rank in sums) for name in sums[0]}
    covariance = torch.zeros(len(sequence), dtype=torch.float64)
    ranked = torch.zeros_like(covariance)
    for part in parts:
        covariance[part] = covariances(advantages[part], logprobs[part], total)
        ranked[part] = scores(covariance[part], priorities[part], config)
    count = budget(total["tokens"], config)
    lowest = cut(torch.cat([best(ranked[part], count) for part in parts]), count)
    close(covariance.tolist(), expected["covariances"], content["tolerance"])
    assert (ranked >= lowest).tolist() == expected["selected"]


@pytest.mark.parametrize(("content", "case"), vectors("overlong"))
def test_overlong(content, case):
    got = soft_overlong(case["length"], case["max_tokens"], OverlongConfig.model_validate(case["config"]))
    close(got, case["expected"], content["tolerance"])


@pytest.mark.parametrize(("content", "case"), vectors("filters"))
def test_filters(content, case):
    got = screen(config=FilterConfig.model_validate(case["config"]), **case["inputs"])
    expected = case["expected"]
    assert (got.reason, got.completions) == (expected["reason"], expected["completions"])
    assert list(got.rewards) == pytest.approx(expected["rewards"])


@pytest.mark.parametrize(("content", "case"), vectors("text_checks"))
def test_text_checks(content, case):
    config = TextChecksConfig.model_validate(case["config"])
    if case["check"] == "repeating":
        parts = [np.tile(part.get("ids") or np.arange(*part["range"]), part.get("times", 1)) for part in case["tokens"]]
        assert is_repeating(np.concatenate([np.empty(0, dtype=np.int32), *parts]), config) == case["expected"]
    else:
        logprobs = [np.full(part["times"], part["value"], dtype=np.float32) for part in case["logprobs"]]
        logprobs.append(np.empty(0, dtype=np.float32))
        assert is_garbled(case["text"], np.concatenate(logprobs), config) == case["expected"]


@pytest.mark.parametrize(("content", "case"), vectors("packing"))
def test_packing(content, case):
    items = [
        Item(length, tuple(map(tuple, shown))) for length, shown in zip(case["lengths"], case["images"], strict=True)
    ]
    cost, budget, expected = CostModel(**case["cost"]), case["budget"], case["expected"]
    plan = pack_ranks(items, budget, cost, case["ranks"])
    bins = [members for rank in plan for members in rank]
    assert sorted(i for members in bins for i in members) == list(range(len(items)))
    over = [members for members in bins if sum(items[i].length for i in members) > budget]
    assert sorted(over) == [[i] for i in expected["own_bin"]]
    assert len(pack(items, budget, cost)) <= (11 * expected["fewest_bins"] + 6) / 9
    assert len(bins) == expected["bins"]
    assert max(map(len, plan)) - min(map(len, plan)) == (expected["bins"] % case["ranks"] > 0)
    costs = [[bin_cost(items, members, cost) for members in rank] for rank in plan]
    time = sum(max(rank[i] for rank in costs if i < len(rank)) for i in range(max(map(len, costs))))
    assert expected["least_time"] - content["tolerance"] <= time <= content["time_within"] * expected["least_time"]


def test_files_are_what_their_derivation_gives():
    for name, content in FILES.items():
        assert json.loads((GOLDEN / f"{name}.json").read_text()) == json.loads(json.dumps(content)), name


def test_every_case_shows_its_steps():
    files = sorted(path.stem for path in GOLDEN.glob("*.json"))
    tested = {*LOSS_FILES, *FILES, "batch_normalisation", "group_advantages", "pass_at_k"}
    assert tested <= set(files)
    for param in vectors(*files):
        content, case = param.values
        assert case["derivation"]
        assert all(peer.keys() == {"project", "function", "checked", "note"} for peer in content.get("peers", []))
